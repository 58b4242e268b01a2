/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Counting. */
#pragma once

#include "maps.h"

/* Counts a packet that is not passed on. */
static __always_inline void count_drop(__u32 reason)
{
	__u64 *drop = bpf_map_lookup_elem(&drops, &reason);

	if (drop)
		*drop += 1;
}

static __always_inline int drop(__u32 reason)
{
	count_drop(reason);
	return VERDICT_DROP;
}

static __always_inline void count_event(__u32 kind)
{
	__u64 *event = bpf_map_lookup_elem(&events, &kind);

	if (event)
		*event += 1;
}

/* A task's entry of `counters`. */
static __always_inline __u32 counter(__u32 slot, bool served)
{
	return slot * 2 + served;
}

static __always_inline void count_flow(__u32 slot, bool served, __u32 frontend)
{
	__u32 index = counter(slot, served);
	struct traffic *traffic = bpf_map_lookup_elem(&counters, &index);

	if (traffic)
		traffic->flows += 1;
	if (served)
		return;
	traffic = bpf_map_lookup_elem(&port_counters, &frontend);
	if (traffic)
		traffic->flows += 1;
}

static __always_inline void add_packet(struct traffic *traffic, bool reverse, __u32 packets, __u32 bytes)
{
	if (reverse) {
		traffic->packets_out += packets;
		traffic->bytes_out += bytes;
	} else {
		traffic->packets_in += packets;
		traffic->bytes_in += bytes;
	}
}

/* Counts a packet of a flow; one that stands for several segments counts as these. `served`: another node was asked. */
static __always_inline void count_packet(struct __sk_buff *skb, const struct flow *flow, bool served, bool reverse)
{
	__u32 index = counter(flow->slot, served), frontend = flow->frontend;
	struct traffic *traffic = bpf_map_lookup_elem(&counters, &index);
	__u32 packets = skb->gso_segs;
	__u32 bytes = skb->len - sizeof(struct ethhdr);

	if (!packets)
		packets = 1;
	if (traffic)
		add_packet(traffic, reverse, packets, bytes);
	if (served)
		return;
	traffic = bpf_map_lookup_elem(&port_counters, &frontend);
	if (traffic)
		add_packet(traffic, reverse, packets, bytes);
}
