/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Ways out: into a task, to another node, to a client outside, to a client on this node. */
#pragma once

#include "tunnel.h"

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
