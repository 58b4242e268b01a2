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
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, struct port_bits);
	__uint(pinning, PIN_BY_NAME);
} ports SEC(".maps");

/* Addresses of nodes. Asked for new flows, and for what goes to other nodes. */
struct {
	__uint(type, MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, MAP_NO_PREALLOC);
	__type(key, struct addr);
	__type(value, struct address);
	__uint(pinning, PIN_BY_NAME);
} addresses SEC(".maps");

/* Lists of networks. Asked for new flows of ports that have such lists, and for new ones of tasks. */
struct {
	__uint(type, MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, MAP_NO_PREALLOC);
	__type(key, struct network_key);
	__type(value, __u32);
	__uint(pinning, PIN_BY_NAME);
} networks SEC(".maps");

/* Published ports. Asked for new flows only. */
struct {
	__uint(type, MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, MAP_NO_PREALLOC);
	__type(key, struct frontend_key);
	__type(value, struct frontend);
	__uint(pinning, PIN_BY_NAME);
} frontends SEC(".maps");

/* Services' own addresses, each with all of its ports. Asked for new flows of tasks only. */
struct {
	__uint(type, MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, MAP_NO_PREALLOC);
	__type(key, __be32);
	__type(value, struct frontend);
	__uint(pinning, PIN_BY_NAME);
} vips SEC(".maps");

/*
 * How IPv6 addresses begin on networks that do not have the mesh's prefix, by the network's number. Asked for every IPv6 packet there, and for
 * no other: flags of backends and services' own addresses say so.
 */
struct {
	__uint(type, MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, MAP_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct addr);
	__uint(pinning, PIN_BY_NAME);
} prefixes SEC(".maps");

/* The node's routes. Asked for new flows of tasks to the world outside, and about others once a second. */
struct {
	__uint(type, MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, MAP_NO_PREALLOC);
	__type(key, struct way_key);
	__type(value, struct way);
	__uint(pinning, PIN_BY_NAME);
} ways SEC(".maps");

/* Who serves them: one for all ports of a service. An update puts a new entry in the place of the old one, in one step. */
struct {
	__uint(type, MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, MAP_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct table);
	__uint(pinning, PIN_BY_NAME);
} tables SEC(".maps");

/* Tasks on their networks, by number. */
struct {
	__uint(type, MAP_TYPE_ARRAY);
	__uint(max_entries, 65535);
	__type(key, __u32);
	__type(value, struct backend);
	__uint(pinning, PIN_BY_NAME);
} backends SEC(".maps");

/* When a task last left somebody without an answer; 0 once it answers. By the same numbers. */
struct {
	__uint(type, MAP_TYPE_ARRAY);
	__uint(max_entries, 65535);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, PIN_BY_NAME);
} suspects SEC(".maps");

/* Other nodes by number. */
struct {
	__uint(type, MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct peer);
	__uint(pinning, PIN_BY_NAME);
} peers SEC(".maps");

/* Tasks by address, and the ports that those of this node serve. Asked for new flows, and for what tasks send to each other. */
struct {
	__uint(type, MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, MAP_NO_PREALLOC);
	__type(key, struct local_key);
	__type(value, __u32);
	__uint(pinning, PIN_BY_NAME);
} locals SEC(".maps");

/* Flows: one entry on the node that was asked, one on the node that runs the task. */
struct {
	__uint(type, MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1048576);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(pinning, PIN_BY_NAME);
} flows SEC(".maps");

/* When a packet of a flow from another node last went to the tunnel's own device, in ticks; 0 when none has. */
struct {
	__uint(type, MAP_TYPE_ARRAY);
	__uint(max_entries, DETOURS);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, PIN_BY_NAME);
} detours SEC(".maps");

/* Ports of fragmented packets, from the first fragment for the others. */
struct {
	__uint(type, MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2048);
	__type(key, struct fragment_key);
	__type(value, struct fragmented);
	__uint(pinning, PIN_BY_NAME);
} fragments SEC(".maps");

/* Fragments that came before the first one of their packet. */
struct {
	__uint(type, MAP_TYPE_LRU_HASH);
	__uint(max_entries, 512);
	__type(key, struct held_key);
	__type(value, struct frame);
	__uint(pinning, PIN_BY_NAME);
} held SEC(".maps");

/* Room for a frame while it is moved; nobody looks at it later. */
struct {
	__uint(type, MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct frame);
	__uint(pinning, PIN_BY_NAME);
} scratch SEC(".maps");

/* Nodes whose clients this one can answer, and when that was proved, in ticks. */
struct {
	__uint(type, MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct addr);
	__type(value, __u32);
	__uint(pinning, PIN_BY_NAME);
} proofs SEC(".maps");

/* Traffic of tasks: two entries for each, by clients that asked this node and by clients of others. */
struct {
	__uint(type, MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 131070);
	__type(key, __u32);
	__type(value, struct traffic);
	__uint(pinning, PIN_BY_NAME);
} counters SEC(".maps");

/* Traffic of published ports, by clients that asked this node. */
struct {
	__uint(type, MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct traffic);
	__uint(pinning, PIN_BY_NAME);
} port_counters SEC(".maps");

/* Packets not passed on, by reason. */
struct {
	__uint(type, MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROP_REASONS);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, PIN_BY_NAME);
} drops SEC(".maps");

/* Things that happened to flows, by kind. */
struct {
	__uint(type, MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EVENTS);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, PIN_BY_NAME);
} events SEC(".maps");

static __always_inline struct node *own_node(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&node, &zero);
}
