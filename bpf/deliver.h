/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Ways out: into a task, to another node, to a client outside, to a client on this node. */
#pragma once

#include "frontends.h"

static __always_inline bool set_macs(struct __sk_buff *skb, const __u8 *dst, const __u8 *src)
{
	struct ethhdr *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return false;
	__builtin_memcpy(eth->dst, dst, 6);
	__builtin_memcpy(eth->src, src, 6);
	return true;
}

/* Makes the frame one for a task of this node. */
static __always_inline bool address_task(struct __sk_buff *skb, const struct backend *backend)
{
	const __u8 host[6] = { 0x02, 0x73, 0x6b, 0x00, 0x00, 0x00 };

	/* Frames from the overlay count as somebody else's until told otherwise. */
	bpf_skb_change_type(skb, PACKET_HOST);
	return set_macs(skb, backend->mac, host);
}

static __always_inline int to_task(struct __sk_buff *skb, const struct backend *backend)
{
	if (!address_task(skb, backend))
		return drop(DROP_REWRITE);
	return bpf_redirect_peer(backend->ifindex, 0);
}

/* What one node tells another about a packet besides the packet. */
struct parcel {
	__be32 task;		/* which task it is for, or from */
	__be16 target;		/* which port of a task it is for */
	__u8 flags;
	__u8 pad;
};

enum { PARCEL_DIRECT = 1 /* the client came by the underlay: who can may answer it there */ };

/* A parcel travels as the frame's addresses, which nobody needs: receivers take frames for any. */
static __always_inline bool write_parcel(struct __sk_buff *skb, const struct parcel *parcel)
{
	const __u8 *task = (const void *)&parcel->task, *target = (const void *)&parcel->target;
	__u8 dst[6] = { 0x02, 0x73, 0x6b, 0x01, target[0], target[1] };
	__u8 src[6] = { 0x02, parcel->flags, task[0], task[1], task[2], task[3] };

	return set_macs(skb, dst, src);
}

static __always_inline bool read_parcel(struct __sk_buff *skb, struct parcel *parcel)
{
	struct ethhdr *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return false;
	parcel->target = eth->dst[4] | (__u16)eth->dst[5] << 8;
	parcel->flags = eth->src[1];
	parcel->task = eth->src[2] | (__u32)eth->src[3] << 8 | (__u32)eth->src[4] << 16 | (__u32)eth->src[5] << 24;
	return true;
}

static __always_inline void tunnel_addr(__u32 *to, const struct addr *addr, bool v4)
{
	if (v4)
		to[0] = bpf_ntohl(addr->w[3]);
	else
		__builtin_memcpy(to, addr, sizeof(*addr));
}

/* Through the tunnel to another node. */
__verified_once int to_node(struct __sk_buff *skb, const struct addr *node, __u32 vni, const struct parcel *parcel)
{
	struct node *own = own_node();
	struct tunnel_key key = { .tunnel_id = vni, .ttl = 64 };
	__u64 flags = F_ZERO_CSUM_TX;
	bool v4;

	if (!own || !node || !parcel)
		return VERDICT_DROP;
	v4 = is_v4(node);
	/* Over IPv6 a datagram without a checksum is dropped by whoever was not told to expect it. */
	if (!v4)
		flags = F_TUNINFO_IPV6;
	tunnel_addr(key.remote, node, v4);
	tunnel_addr(key.local, &own->underlay, v4);
	/* Before 6.0 the source address cannot be said: the route to the other node decides. */
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags) && bpf_skb_set_tunnel_key(skb, &key, TUNNEL_KEY_OLD, flags))
		return drop(DROP_REWRITE);
	if (!write_parcel(skb, parcel))
		return drop(DROP_REWRITE);
	return bpf_redirect(own->overlay_ifindex, 0);
}

/* The way back that a flow's entry says. `daddr` is whom the packet is for, `from` the task that it is from, 0 when it is from none. */
static __always_inline int to_client(struct __sk_buff *skb, const struct flow *flow, const struct addr *daddr, __be32 from)
{
	const __u8 none[6] = {};
	const struct parcel parcel = { .task = from };
	struct backend *task;
	struct node *own;
	__u32 slot;

	switch (flow->out) {
	case OUT_UPLINK:
		return bpf_redirect_neigh(flow->ifindex, NULL, 0, 0);
	case OUT_DIRECT:
		/* Back to the way that always works as soon as the proof is gone. */
		if (likely(address_flags(&flow->node) & ADDRESS_DIRECT))
			return bpf_redirect_neigh(flow->ifindex, NULL, 0, 0);
		return to_node(skb, &flow->node, VNI_REPLY, &parcel);
	case OUT_TUNNEL:
		return to_node(skb, &flow->node, VNI_REPLY, &parcel);
	case OUT_MEMBER:
		return to_node(skb, &flow->node, VNI_DIRECT, &parcel);
	case OUT_TASK:
		task = local_task(daddr->w[3], &slot);
		return task ? to_task(skb, task) : drop(DROP_UNKNOWN_TASK);
	case OUT_LOOPBACK:
		own = own_node();
		/* The loopback device's own address is all zeros: any other makes the frame somebody else's. */
		if (!own || !set_macs(skb, none, none))
			return drop(DROP_REWRITE);
		return bpf_redirect(own->loopback, F_INGRESS);
	}
	return VERDICT_DROP;
}
