/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Ways out: into a task, to another node, to a client outside, to a client on this node. */
#pragma once

#include "stats.h"

/* What every frame of ours inside the overlay is addressed to; receivers do not look at it. */
#define OVERLAY_MAC { 0x02, 0x73, 0x6b, 0x01, 0x00, 0x00 }

static __always_inline bool set_macs(struct __sk_buff *skb, const __u8 *dst, const __u8 *src)
{
	struct ethhdr *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return false;
	__builtin_memcpy(eth->dst, dst, 6);
	__builtin_memcpy(eth->src, src, 6);
	return true;
}

/*
 * To another node. The frame's source address carries the published port, so that an owner whose task takes no new flows can ask
 * the same frontend again.
 */
static __always_inline int deliver_tunnel(struct __sk_buff *skb, const struct flow *flow, const struct node *own)
{
	const __u8 dst[6] = OVERLAY_MAC;
	__u8 src[6] = { 0x02, 0x73, 0x6b, 0x00, flow->published & 0xff, flow->published >> 8 };
	struct tunnel_key key = {};

	if (flow->flags & FLOW_REVERSE)
		key.tunnel_id = VNI_REPLY;
	else
		key.tunnel_id = flow->flags & FLOW_SECOND ? VNI_SECOND : VNI_FORWARD;
	key.remote_ipv4 = bpf_ntohl(flow->node);
	key.local_ipv4 = bpf_ntohl(own->underlay);
	key.ttl = 64;
	/* Before 6.0 the source address cannot be said: the route to the other node decides. */
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), F_ZERO_CSUM_TX) &&
	    bpf_skb_set_tunnel_key(skb, &key, TUNNEL_KEY_OLD, F_ZERO_CSUM_TX))
		return drop(DROP_REWRITE);
	if (!set_macs(skb, dst, src))
		return drop(DROP_REWRITE);
	return bpf_redirect(own->overlay_ifindex, 0);
}

static __always_inline int deliver(struct __sk_buff *skb, const struct flow *flow)
{
	const __u8 none[6] = {};
	const __u8 host[6] = OVERLAY_MAC;
	struct node *own = own_node();

	if (!own)
		return VERDICT_DROP;
	switch (flow->out) {
	case OUT_TASK:
		/* Frames from the overlay count as somebody else's until told otherwise. */
		bpf_skb_change_type(skb, PACKET_HOST);
		if (!set_macs(skb, flow->mac, host))
			return drop(DROP_REWRITE);
		return bpf_redirect_peer(flow->ifindex, 0);
	case OUT_TUNNEL:
		return deliver_tunnel(skb, flow, own);
	case OUT_UPLINK:
		return bpf_redirect_neigh(flow->ifindex, NULL, 0, 0);
	case OUT_LOOPBACK:
		/* The loopback device's own address is all zeros: any other makes the frame somebody else's. */
		if (!set_macs(skb, none, none))
			return drop(DROP_REWRITE);
		return bpf_redirect(own->loopback, F_INGRESS);
	}
	return VERDICT_DROP;
}
