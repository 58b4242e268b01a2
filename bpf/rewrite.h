/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Addresses, ports, segment sizes, checksums. Transport checksums go through the kernel's helpers, which know what offload has done
 * or will do; the IP header's own checksum never is offloaded and is patched here.
 */
#pragma once

#include "parse.h"

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* RFC 1624, equation 3: the checksum after the sum of what it covers has grown by `delta`. */
static __always_inline __u16 patched(__u16 check, __s64 delta)
{
	return ~fold((__u64)(__u16)~check + (__u32)delta);
}

static __always_inline __u32 checksum_offset(const struct packet *packet)
{
	if (packet->proto == PROTO_TCP)
		return packet->l4 + __builtin_offsetof(struct tcphdr, check);
	return packet->l4 + __builtin_offsetof(struct udphdr, check);
}

struct tuple {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
};

static __always_inline bool rewrite_transport(struct __sk_buff *skb, const struct packet *packet, const struct tuple *to,
					      __s64 delta)
{
	__u64 mangled = packet->proto == PROTO_UDP ? F_MARK_MANGLED_0 : 0;
	__u32 before = packet->sport | (__u32)packet->dport << 16;
	__u32 after = to->sport | (__u32)to->dport << 16;
	__u32 check = checksum_offset(packet);

	if (bpf_l4_csum_replace(skb, check, 0, delta, F_PSEUDO_HDR | mangled))
		return false;
	return before == after || bpf_l4_csum_replace(skb, check, before, after, sizeof(before) | mangled) == 0;
}

/* Puts another tuple into the packet. Later fragments have no ports, and their share of the checksum does not change. */
static __always_inline bool rewrite(struct __sk_buff *skb, const struct packet *packet, const struct tuple *to)
{
	__be32 before[2] = { packet->saddr, packet->daddr };
	__be32 after[2] = { to->saddr, to->daddr };
	__s64 delta = bpf_csum_diff(before, sizeof(before), after, sizeof(after), 0);
	bool ports = !is_later_fragment(packet) && packet->proto != PROTO_ICMP;
	struct iphdr *ip;
	struct ports *l4;

	if (ports && !rewrite_transport(skb, packet, to, delta))
		return false;
	ip = (void *)(long)skb->data + sizeof(struct ethhdr);
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return false;
	ip->saddr = to->saddr;
	ip->daddr = to->daddr;
	ip->check = patched(ip->check, delta);
	if (!ports)
		return true;
	/* At most 74; the verifier has to see that. */
	l4 = (void *)(long)skb->data + (packet->l4 & 127);
	if ((void *)(l4 + 1) > (void *)(long)skb->data_end)
		return false;
	l4->sport = to->sport;
	l4->dport = to->dport;
	return true;
}

/*
 * Keeps a connection's segments small enough for the overlay by what its SYNs say of it. The option at an odd offset, which nobody
 * sends, is left alone.
 */
__verified_once int clamp_segments(struct __sk_buff *skb, __u32 l4, __u32 most)
{
	__u8 offset;
	__u32 at, end;

	if (bpf_skb_load_bytes(skb, l4 + __builtin_offsetof(struct tcphdr, offset), &offset, 1))
		return 0;
	at = l4 + sizeof(struct tcphdr);
	end = l4 + (offset >> 4) * 4;
	for (int i = 0; i < 16; i++) {
		__u8 option[4];
		__be16 now, then;

		if (at + sizeof(option) > end || bpf_skb_load_bytes(skb, at, option, sizeof(option)))
			return 0;
		if (option[0] == 0)
			return 0;
		if (option[0] == 1) {
			at += 1;
			continue;
		}
		if (option[0] != 2) {
			if (option[1] < 2)
				return 0;
			at += option[1];
			continue;
		}
		now = option[2] | (__u16)option[3] << 8;
		then = bpf_htons(most);
		if (option[1] != 4 || bpf_ntohs(now) <= most || (at - l4) % 2)
			return 0;
		if (bpf_l4_csum_replace(skb, l4 + __builtin_offsetof(struct tcphdr, check), now, then, sizeof(then)))
			return 0;
		return bpf_skb_store_bytes(skb, at + 2, &then, sizeof(then), 0) == 0;
	}
	return 0;
}
