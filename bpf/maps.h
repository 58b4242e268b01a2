/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The maps. All are pinned; their sizes here are defaults that the daemon may override when it makes them. */
#pragma once

#include "layout.h"

/* Facts about the node. */
struct {
	__uint(type, MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct node);
	__uint(pinning, PIN_BY_NAME);
} node SEC(".maps");

/* Which ports are published at all: the one question that traffic of others has to pay for. */
struct {
	__uint(type, MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct port_bits);
	__uint(pinning, PIN_BY_NAME);
} ports SEC(".maps");

/* Addresses of nodes. Asked for new flows only. */
struct {
	__uint(type, MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, MAP_NO_PREALLOC);
	__type(key, __be32);
	__type(value, __u32);
	__uint(pinning, PIN_BY_NAME);
} addresses SEC(".maps");

/* Published ports and who serves them. Asked for new flows only. Sizes instead of types: a map of maps takes no type information. */
struct {
	__uint(type, MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 16384);
	__uint(map_flags, MAP_NO_PREALLOC);
	__uint(key_size, sizeof(struct frontend_key));
	__uint(value_size, sizeof(__u32));
	__uint(pinning, PIN_BY_NAME);
	__array(values, struct {
		__uint(type, MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct frontend));
	});
} frontends SEC(".maps");

/* Backends by number. */
struct {
	__uint(type, MAP_TYPE_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct backend);
	__uint(pinning, PIN_BY_NAME);
} backends SEC(".maps");

/* Tasks of this node by address, and the ports that they serve. Asked for new flows only. */
struct {
	__uint(type, MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, MAP_NO_PREALLOC);
	__type(key, struct local_key);
	__type(value, __u32);
	__uint(pinning, PIN_BY_NAME);
} locals SEC(".maps");

/* Both directions of every flow. */
struct {
	__uint(type, MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(pinning, PIN_BY_NAME);
} flows SEC(".maps");

/* Ports of fragmented packets, from the first fragment for the others. */
struct {
	__uint(type, MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2048);
	__type(key, struct fragment_key);
	__type(value, struct ports);
	__uint(pinning, PIN_BY_NAME);
} fragments SEC(".maps");

/* Traffic per backend. */
struct {
	__uint(type, MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct traffic);
	__uint(pinning, PIN_BY_NAME);
} counters SEC(".maps");

/* Packets not passed on, by reason. */
struct {
	__uint(type, MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROP_REASONS);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, PIN_BY_NAME);
} drops SEC(".maps");

static __always_inline struct node *own_node(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&node, &zero);
}
