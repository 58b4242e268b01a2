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

static __always_inline void count_flow(__u32 slot)
{
	struct traffic *traffic = bpf_map_lookup_elem(&counters, &slot);

	if (traffic)
		traffic->flows += 1;
}

/* Counts a packet of a backend; one that stands for several segments counts as these. */
static __always_inline void count_packet(struct __sk_buff *skb, __u32 slot, bool reverse)
{
	struct traffic *traffic = bpf_map_lookup_elem(&counters, &slot);
	__u32 packets = skb->gso_segs;
	__u32 bytes = skb->len - sizeof(struct ethhdr);

	if (!traffic)
		return;
	if (!packets)
		packets = 1;
	if (reverse) {
		traffic->packets_out += packets;
		traffic->bytes_out += bytes;
	} else {
		traffic->packets_in += packets;
		traffic->bytes_in += bytes;
	}
}
