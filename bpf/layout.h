/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Keys and values of the maps, as the daemon knows them too (crates/mesh/src/bpf/layout.rs). Maps outlive the daemon and the
 * programs: whoever changes a size or a meaning here raises LAYOUT in both places.
 */
#pragma once

#include "kernel.h"

#define LAYOUT 4

/* Slots of a Maglev table (crates/mesh/src/maglev.rs says why this many). */
#define MAGLEV_SLOTS 2003

/* Network identifiers on the wire: "sk" and a number. */
enum { VNI_FORWARD = 0x736b01, VNI_REPLY = 0x736b02, VNI_SECOND = 0x736b03, VNI_DIRECT = 0x736b04 };

/* An address of either family; those of IPv4 are mapped (RFC 4291, 2.5.5.2). */
struct addr {
	__u32 w[4];
};

/*
 * The first 96 bits of the IPv6 addresses of nodes inside the mesh, and of tasks on networks that have no others (`prefixes`); the rest is their
 * IPv4 address (skep_model::Prefix6).
 */
#define MESH_PREFIX_0 bpf_htonl(0xfd736b65)
#define MESH_PREFIX_1 bpf_htonl(0x70000000)

enum { NODE_REPLY_DIRECT = 1 /* answers clients of other nodes itself, where they say that it may */ };

/* About the node; the only entry of the map `node`. */
struct node {
	__u32 layout;
	__u32 flags;
	struct addr underlay;
	__be32 overlay;
	__u32 loopback;
	__u32 overlay_ifindex;
	__u32 mtu;		/* of the overlay */
	__u32 uplink;		/* the device of the underlay address, or 0 */
	__be16 tunnel_port;
	__u16 pad;
};

enum {
	ADDRESS_OWN = 1,	/* this node's: frontends answer on it for everybody */
	ADDRESS_MEMBER = 2,	/* another member's: frontends answer on it for tasks of this node */
	ADDRESS_TRUSTED = 4,	/* overlay packets from it are believed */
	ADDRESS_DIRECT = 8,	/* clients of that node may be answered by this one */
};

/* An address of a node. */
struct address {
	__u32 flags;
	__u32 ifindex;		/* the device by which it sends and is sent to through the tunnel without the tunnel's own; 0 when it does not */
};

/*
 * Where nodes prove to each other that one may answer the other's clients: a datagram from the other's address to the other's address,
 * which only an underlay that lets that pass delivers. The gossip's own port: nobody can publish it.
 */
#define PROBE_PORT 7946

/* One bit per port; an entry each for TCP (0), UDP (1) and SCTP (2). */
struct port_bits {
	__u64 words[1024];
};

struct frontend_key {
	__be16 port;
	__u8 proto;
	__u8 pad;
};

enum {
	FRONTEND_HOST = 1,	/* host mode: only on own addresses */
	FRONTEND_SILENT = 2,	/* clients of this node are not answered; packets that other nodes send on are */
	FRONTEND_AFFINITY = 4,	/* the client's address alone decides */
	FRONTEND_PREFIX = 8,	/* of a service's own address: its network is in `prefixes` */
};

/* Flows are forgotten at once: each packet is a flow of its own. */
#define IDLE_AT_ONCE 0xffff

/* Of services' own addresses: nobody counts by port there. */
#define NO_PORT 0xffff

/* A published port, or a service's own address with all of its ports. */
struct frontend {
	__u32 table;		/* in `tables` */
	__u32 number;		/* in `port_counters` */
	__u32 sources;		/* list in `networks` that clients must be in; 0 for any */
	__u32 listen;		/* list in `networks` that the asked address must be in; 0 for any */
	__u32 network;		/* of a service's own address: the network that clients must be on */
	__be16 target;		/* port of the tasks; 0 for the asked one */
	__u16 flags;
	__u16 idle;		/* seconds; 0 for the default, or IDLE_AT_ONCE */
	__u16 pad;
};

/* A list of networks, as a longest-prefix trie of all lists. The values of one list say more than that they are there. */
#define LIST_OVERLAYS 0 /* the swarm's own networks: nothing for them may leave by an uplink */
struct network_key {
	__u32 bits;		/* of what follows: 32 and the network's own */
	__u32 list;
	struct addr addr;
};

/* Which backends take new flows; filled once, swapped as a whole. With what the kernel adds it fits into a page. */
struct table {
	__u32 number;		/* its key */
	__u32 count;		/* MAGLEV_SLOTS, or 0 when nobody is ready */
	__u16 slots[MAGLEV_SLOTS + 1];
};

enum {
	BACKEND_NO_IPV6 = 1,	/* its kernel has none */
	BACKEND_EGRESS = 2,	/* it may talk to the world outside */
	BACKEND_PREFIX = 4,	/* its network is in `prefixes` */
};

enum { BACKEND_GONE = 0, BACKEND_READY = 1, BACKEND_DRAINING = 2, BACKEND_STARTING = 3 };

/* A task on one of its networks, here or elsewhere. */
struct backend {
	__u64 task;		/* hash of the task's id: the daemon knows its entries again by it */
	struct addr node;	/* underlay address of its node, zero when it is here */
	__be32 addr;		/* on that network */
	__u32 ifindex;		/* host's side of its veth pair when it is here */
	__u32 generation;	/* grows with every new owner of the entry: flows of the old one are known by it */
	__u32 peer;		/* its node in `peers` */
	__u32 network;		/* its number; 0 for the mesh's own, on which tasks do not talk to each other */
	__u32 pad;
	__u8 state;
	__u8 mac[6];
	__u8 flags;
};

/* A route of the node: the daemon tells them, since the kernel's own answer is for programs of another licence. */
struct way_key {
	__u32 bits;
	struct addr addr;
};

/* Where it leads, by which address, and how big packets may be. */
struct way {
	struct addr source;
	__u32 ifindex;
	__u32 mtu;
};

/* What packets say about another node. Times are in ticks of 2^20 ns. */
struct peer {
	__u32 heard;		/* an answer came from it */
	__u32 suspected;	/* it did not answer, and nothing else was heard of it either; 0 when not */
};

/* By address: which backend entry a task has. By port and protocol: that some task of this node serves there. */
struct local_key {
	__be32 addr;
	__be16 port;
	__u8 proto;
	__u8 pad;
};

/* Where a packet was seen. */
enum {
	PATH_CLIENT = 0,	/* on an uplink or the loopback device */
	PATH_TASK = 1,		/* from a task */
	PATH_FORWARD = 2,	/* from another node to a task */
	PATH_REPLY = 3,		/* from another node to a client */
	PATH_BACK = 4,		/* from another node to a task of the node that was asked */
	PATH_DIRECT = 5,	/* from a task of another node to one of this */
};

/* What a flow entry stands for. */
enum {
	/* A flow at the node that the client asked, or that passes it on, by the client's packets. */
	KIND_ASKED = 0,
	/* A flow at the node that runs the task, by the task's packets. */
	KIND_SERVED = 1,
	/* A flow of a client on the loopback device to a task elsewhere, by the answers as they come back. */
	KIND_LOOPED = 2,
	/* What a task has with the world outside, by the task's packets. */
	KIND_EGRESS = 3,
	/* The same by the answers, as they come to the node. */
	KIND_MASQUERADED = 4,
};

/* Ports that tasks go out by: above those that Linux gives to sockets by default. */
#define EGRESS_FIRST 61000
#define EGRESS_PORTS (65536 - EGRESS_FIRST)

struct flow_key {
	struct addr saddr;
	struct addr daddr;
	__be16 sport;
	__be16 dport;
	__u8 proto;
	__u8 kind;
	__u16 pad;
};

/* The way back to the client. */
enum {
	OUT_UPLINK = 0,		/* by the device `ifindex` */
	OUT_LOOPBACK = 1,
	OUT_TASK = 2,		/* the client is a task of this node */
	OUT_TUNNEL = 3,		/* by the node `node`, which sent the packet here */
	OUT_DIRECT = 4,		/* by the device `ifindex`, although `node` sent the packet here */
	OUT_MEMBER = 5,		/* by the node `node`, whose task sent the packet */
};

enum {
	FLOW_ANSWERED = 0x01,	/* the task has said something */
	FLOW_CLIENT_FIN = 0x02,
	FLOW_TASK_FIN = 0x04,
	FLOW_CLOSED = 0x10,	/* both FINs were acknowledged */
	FLOW_RESET = 0x20,
	FLOW_CHANGED = 0x40,	/* the task sees another address than the client's own */
	FLOW_TASK_LAST = 0x80,	/* the client's FIN came first */
};

/* About a flow. Times are in ticks of 2^20 ns. */
struct flow {
	struct addr far;	/* SERVED, LOOPED: the address that the client asked. EGRESS: that it goes out by. MASQUERADED: the task's */
	struct addr node;	/* the node that sent it here; of a flow that came otherwise, the client's own address if CHANGED */
	__be16 far_port;	/* SERVED: the published port. ASKED: the task's */
	/* SERVED, LOOPED: the client's own port. ASKED: its port towards the task. EGRESS: that it goes out by. MASQUERADED: the task's */
	__be16 port;
	__u32 ifindex;		/* EGRESS, MASQUERADED: 0 when the node itself is asked */
	__u32 slot;		/* backend entry, */
	__u32 generation;	/* and whose */
	__u16 frontend;		/* its number. EGRESS: how big packets may be */
	__u16 idle;		/* as the frontend's */
	__u32 seen;
	__u32 fin __attribute__((aligned(8)));	/* the client's next sequence number, after its FIN; with what follows, one word */
	__u8 out;
	__u8 flags;
	__u8 tries;		/* SYNs without an answer */
	__u8 pad;
};

/* Places where it is noted that packets of a flow go to the tunnel's own device. Several flows may share one. */
#define DETOURS 16384

struct fragment_key {
	struct addr saddr;
	struct addr daddr;
	__u32 id;
	__u8 proto;
	__u8 path;
	__u16 pad;
};

struct ports {
	__be16 sport;
	__be16 dport;
};

/* What is known of a fragmented packet. */
struct fragmented {
	struct ports ports;
	__u8 known;		/* the first fragment was here */
	__u8 held;		/* later ones that came before it */
	__u16 pad;
};

/* Fragments of one packet that may wait for the first. */
#define HELD_MOST 16
/* The biggest frame that can wait. */
#define HELD_BYTES 2048

struct held_key {
	struct fragment_key packet;
	__u32 index;
};

struct frame {
	__u32 size;
	__u8 bytes[HELD_BYTES];
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
	DROP_NO_IPV6,
	DROP_OTHER_NETWORK,
	DROP_NO_WAY_OUT,
	DROP_NO_ROUTE,
	DROP_REASONS = 16,
};

/* What happened to flows (as above). */
enum {
	EVENT_PORT_CHANGED,
	EVENT_SECOND_CHANCE,
	EVENT_CHOSEN_AGAIN,
	EVENT_TIME_WAIT_ENDED,
	EVENT_TOO_BIG,
	EVENT_SUSPECTED,
	EVENT_WENT_OUT,
	EVENT_HOPS_EXCEEDED,
	EVENTS = 16,
};
