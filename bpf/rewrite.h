/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Addresses, ports, segment sizes, checksums. Transport checksums go through the kernel's helpers, which know what offload has done
 * or will do; the IPv4 header's own checksum never is offloaded and is patched here.
 */
#pragma once

#include "crc32c.h"
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

struct tuple {
	struct addr saddr;
	struct addr daddr;
	__be16 sport;
	__be16 dport;
};

static __always_inline void tuple_of(struct tuple *tuple, const struct flow_key *key)
{
	tuple->saddr = key->saddr;
	tuple->daddr = key->daddr;
	tuple->sport = key->sport;
	tuple->dport = key->dport;
}

/* By how much the sum of the addresses grows. That of mapped addresses grows as that of the IPv4 addresses in them. */
static __always_inline __s64 addresses_delta(const struct flow_key *from, const struct tuple *to)
{
	return bpf_csum_diff(&from->saddr, 2 * sizeof(struct addr), &to->saddr, 2 * sizeof(struct addr), 0);
}

/*
 * The checksum field at `offset` after the addresses of the pseudo header have changed. The helper takes the device's sum of the whole
 * packet for changed too, since in IPv4 the header's checksum makes up for it; IPv6 has none, and the sum stays.
 */
static __always_inline bool patch_pseudo(struct __sk_buff *skb, const struct packet *packet, __u32 offset, __s64 delta, __u64 flags)
{
	if (bpf_l4_csum_replace(skb, offset, 0, delta, F_PSEUDO_HDR | flags))
		return false;
	if (packet->version == 6)
		bpf_csum_update(skb, delta);
	return true;
}

static __always_inline bool rewrite_transport(struct __sk_buff *skb, const struct packet *packet, const struct tuple *to,
					      __s64 delta)
{
	__u64 mangled = packet->key.proto == PROTO_UDP ? F_MARK_MANGLED_0 : 0;
	__u32 before = packet->key.sport | (__u32)packet->key.dport << 16;
	__u32 after = to->sport | (__u32)to->dport << 16;
	__u32 check = packet->l4;

	if (packet->key.proto == PROTO_SCTP) {
		if (before == after)
			return true;
		/* The first fragment does not say how long the packet is that its checksum covers. */
		return !packet->fragment && patch_crc32c(skb, packet->l4, packet->length, before ^ after) == 0;
	}
	check += packet->key.proto == PROTO_TCP ? __builtin_offsetof(struct tcphdr, check) : __builtin_offsetof(struct udphdr, check);
	if (!patch_pseudo(skb, packet, check, delta, mangled))
		return false;
	return before == after || bpf_l4_csum_replace(skb, check, before, after, sizeof(before) | mangled) == 0;
}

static __always_inline bool rewrite_v4(struct __sk_buff *skb, const struct tuple *to, __s64 delta)
{
	struct iphdr *ip = (void *)(long)skb->data + sizeof(struct ethhdr);

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return false;
	ip->saddr = to->saddr.w[3];
	ip->daddr = to->daddr.w[3];
	ip->check = patched(ip->check, delta);
	return true;
}

static __always_inline bool rewrite_v6(struct __sk_buff *skb, const struct tuple *to)
{
	struct ipv6hdr *ip = (void *)(long)skb->data + sizeof(struct ethhdr);

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return false;
	__builtin_memcpy(ip->saddr, &to->saddr, sizeof(to->saddr));
	__builtin_memcpy(ip->daddr, &to->daddr, sizeof(to->daddr));
	return true;
}

static __always_inline bool rewrite_network(struct __sk_buff *skb, const struct packet *packet, const struct tuple *to, __s64 delta)
{
	return packet->version == 4 ? rewrite_v4(skb, to, delta) : rewrite_v6(skb, to);
}

/* Puts another tuple into the packet. Later fragments have no ports, and their share of the checksum does not change. */
__verified_once int rewrite(struct __sk_buff *skb, const struct packet *packet, const struct tuple *to)
{
	struct ports *l4;
	__s64 delta;

	if (!packet || !to)
		return 0;
	delta = addresses_delta(&packet->key, to);
	if (packet->fragment != FRAGMENT_LATER && !rewrite_transport(skb, packet, to, delta))
		return 0;
	if (!rewrite_network(skb, packet, to, delta))
		return 0;
	if (packet->fragment == FRAGMENT_LATER)
		return 1;
	/* At most DEEPEST_L4; the verifier has to see that. */
	l4 = (void *)(long)skb->data + (packet->l4 & 127);
	if ((void *)(l4 + 1) > (void *)(long)skb->data_end)
		return 0;
	l4->sport = to->sport;
	l4->dport = to->dport;
	return 1;
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
