/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * ICMP errors about packets of our flows. The embedded packet went the other way than the error, after it had been rewritten; so it is
 * looked up turned round, and what would be done to a packet of that direction is done, turned round again, to the embedded one.
 */
#pragma once

#include "flows.h"

/* The embedded packet as far as every error has it. */
struct quoted {
	struct iphdr ip;
	struct udphdr l4;	/* of TCP, the ports and the sequence number */
};

static __always_inline bool is_error(__u8 type)
{
	return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_BAD_PARAMETER;
}

/* Reads the embedded packet of an error and says which flow's direction it answers. `l4` is where its ports are. */
static __always_inline bool read_error(struct __sk_buff *skb, const struct packet *packet, struct flow_key *key, struct quoted *quoted,
				       __u32 *l4)
{
	__u32 at = packet->l4 + sizeof(struct icmphdr);
	struct icmphdr icmp;

	if (bpf_skb_load_bytes(skb, packet->l4, &icmp, sizeof(icmp)) || !is_error(icmp.type) ||
	    bpf_skb_load_bytes(skb, at, &quoted->ip, sizeof(quoted->ip)))
		return false;
	*l4 = at + (quoted->ip.version_ihl & 0x0f) * 4;
	if (quoted->ip.version_ihl >> 4 != 4 || *l4 < at + sizeof(quoted->ip) || quoted->ip.fragment & bpf_htons(FRAGMENT_OFFSET) ||
	    (quoted->ip.proto != PROTO_TCP && quoted->ip.proto != PROTO_UDP) ||
	    bpf_skb_load_bytes(skb, *l4, &quoted->l4, sizeof(quoted->l4)))
		return false;
	key->saddr = quoted->ip.daddr;
	key->daddr = quoted->ip.saddr;
	key->sport = quoted->l4.dport;
	key->dport = quoted->l4.sport;
	key->proto = quoted->ip.proto;
	return true;
}

static __always_inline bool rewrite_quoted(struct __sk_buff *skb, const struct packet *packet, const struct flow *flow,
					   struct quoted *quoted, __u32 l4)
{
	struct quoted was = *quoted;
	__s64 delta;

	quoted->ip.saddr = flow->daddr;
	quoted->ip.daddr = flow->saddr;
	delta = bpf_csum_diff(&was.ip.saddr, 8, &quoted->ip.saddr, 8, 0);
	quoted->ip.check = patched(quoted->ip.check, delta);
	quoted->l4.sport = flow->dport;
	quoted->l4.dport = flow->sport;
	if (quoted->ip.proto == PROTO_UDP && quoted->l4.check) {
		delta = bpf_csum_diff(&was.l4, 4, &quoted->l4, 4, (__u32)delta);
		quoted->l4.check = patched(quoted->l4.check, delta);
	}
	delta = bpf_csum_diff(&was, sizeof(was), quoted, sizeof(*quoted), 0);
	return bpf_l4_csum_replace(skb, packet->l4 + __builtin_offsetof(struct icmphdr, check), 0, delta, 0) == 0 &&
	       bpf_skb_store_bytes(skb, packet->l4 + sizeof(struct icmphdr), &quoted->ip, sizeof(quoted->ip), 0) == 0 &&
	       bpf_skb_store_bytes(skb, l4, &quoted->l4, sizeof(quoted->l4), 0) == 0;
}

/* Translates an error and sends it after the flow; `otherwise` is the verdict for errors that are about no flow of ours. */
__verified_once int follow_error(struct __sk_buff *skb, struct packet *packet, __u32 path, __be32 origin, int otherwise)
{
	struct flow_key key = { .path = path, .origin = origin };
	struct quoted quoted;
	struct tuple to = {};
	struct flow *flow;
	__u32 l4;

	if (!packet || !read_error(skb, packet, &key, &quoted, &l4))
		return otherwise;
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow)
		return otherwise;
	/* Who reports keeps its name, unless it is the flow's end itself. */
	to.saddr = packet->saddr == key.saddr ? flow->saddr : packet->saddr;
	to.daddr = flow->daddr;
	if (path == PATH_TASK && packet->saddr != key.saddr)
		return drop(DROP_SPOOFED);
	if (!rewrite_quoted(skb, packet, flow, &quoted, l4) || !rewrite(skb, packet, &to))
		return drop(DROP_REWRITE);
	return deliver(skb, flow);
}
