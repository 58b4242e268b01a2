/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Keys and values of the maps, as the daemon knows them too (crates/mesh/src/bpf/layout.rs). Maps outlive the daemon and the
 * programs: whoever changes a size or a meaning here raises LAYOUT in both places.
 */
#pragma once

#include "kernel.h"

#define LAYOUT 1

/* Slots of a Maglev table (crates/mesh/src/maglev.rs says why this many). */
#define MAGLEV_SLOTS 2039

/* Network identifiers on the wire: "sk" and a number. */
enum { VNI_FORWARD = 0x736b01, VNI_REPLY = 0x736b02, VNI_SECOND = 0x736b03 };

/* About the node; the only entry of the map `node`. */
struct node {
	__u32 layout;
	__be32 underlay;
	__be32 overlay;
	__u32 loopback;
	__u32 overlay_ifindex;
	__u32 mss;
};

/* Bits of the map `addresses`. */
enum {
	ADDRESS_OWN = 1,	/* this node's: frontends answer on it for everybody */
	ADDRESS_MEMBER = 2,	/* another member's: frontends answer on it for tasks of this node */
	ADDRESS_TRUSTED = 4,	/* overlay packets from it are believed */
};

/* One bit per port; an entry each for TCP (0) and UDP (1). */
struct port_bits {
	__u64 words[1024];
};

struct frontend_key {
	__be16 port;
	__u8 proto;
	__u8 pad;
};

enum { FRONTEND_HOST = 1 /* host mode: only on own addresses */ };

/* A frontend's choice of backends; filled once, swapped as a whole. */
struct frontend {
	__u32 flags;
	__u32 count;		/* MAGLEV_SLOTS, or 0 when nobody is ready */
	__u32 slots[MAGLEV_SLOTS];
};

enum { BACKEND_GONE = 0, BACKEND_READY = 1, BACKEND_DRAINING = 2 };

/* A backend of one frontend, or (port 0) a task of this node as other nodes send to it. */
struct backend {
	__u64 task;		/* hash of the task's id: the daemon knows its entries again by it */
	__be32 addr;
	__be32 node;		/* underlay address of its node, 0 when it is here */
	__u32 ifindex;		/* host's side of its veth pair when it is here */
	__u32 generation;	/* grows with every new owner of the entry: flows of the old one are known by it */
	__be16 port;
	__be16 published;
	__u8 state;
	__u8 proto;
	__u8 mac[6];
	__u32 pad;
};

/* Which backend entry a task of this node has; with port and protocol: that a task serves there. */
struct local_key {
	__be32 addr;
	__be16 port;
	__u8 proto;
	__u8 pad;
};

/* Where a packet was seen. Tuples of different paths never mix. */
enum {
	PATH_CLIENT = 0,	/* from an uplink or the loopback device */
	PATH_TASK = 1,		/* from a task; origin is its device */
	PATH_FORWARD = 2,	/* from another node to a task; origin is that node */
	PATH_REPLY = 3,		/* from another node to a client; origin is that node */
};

/* One direction of a flow, as its packets look before they are rewritten. */
struct flow_key {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	__be32 origin;
	__u8 proto;
	__u8 path;
	__u16 pad;
};

/* How a packet leaves. */
enum { OUT_TASK = 0, OUT_TUNNEL = 1, OUT_UPLINK = 2, OUT_LOOPBACK = 3 };

enum {
	FLOW_REVERSE = 1,	/* towards the client */
	FLOW_RESET = 2,		/* a reset was seen */
	FLOW_ANSWERED = 4,	/* on the reverse direction: it has had a packet */
	FLOW_SECOND = 8,	/* passed on by an owner that takes no new flows for its task */
};

/* What becomes of the packets of one direction. Times are in ticks of 2^20 ns. */
struct flow {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	__u8 out;
	__u8 flags;
	__u8 tries;		/* SYNs without an answer */
	__u8 pad;
	__u32 ifindex;
	__be32 node;
	__u32 slot;		/* backend entry, */
	__u32 generation;	/* and whose */
	__u32 seen;
	__u32 closing;		/* when the FIN came, or 0 */
	__be16 published;
	__u8 mac[6];
};

struct fragment_key {
	__be32 saddr;
	__be32 daddr;
	__be32 origin;
	__be16 id;
	__u8 proto;
	__u8 path;
};

struct ports {
	__be16 sport;
	__be16 dport;
};

struct traffic {
	__u64 flows;
	__u64 packets_in;
	__u64 bytes_in;
	__u64 packets_out;
	__u64 bytes_out;
};

/* Why a packet was not passed on (crates/mesh/src/datapath.rs has the names). */
enum {
	DROP_MALFORMED,
	DROP_NO_BACKEND,
	DROP_BACKEND_GONE,
	DROP_NOT_A_MEMBER,
	DROP_SPOOFED,
	DROP_UNKNOWN_FLOW,
	DROP_UNKNOWN_TASK,
	DROP_NO_PORT,
	DROP_FRAGMENT,
	DROP_REWRITE,
	DROP_REASONS = 16,
};
