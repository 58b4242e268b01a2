/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Flows. The node that was asked has an entry by the client's packets, the node of the task one by the task's; where both are one node
 * it has both, and each suffices to make the other again, so that pressure on the table loses neither for longer than a second.
 */
#pragma once

#include "deliver.h"
#include "rewrite.h"

/* A task's kernel remembers a connection that it closed itself for 60 s. */
#define TIME_WAIT_TICKS (62 * TICKS_PER_SECOND)
/* Nobody waits longer for an answer to a SYN or to a datagram. */
#define UNANSWERED_TICKS (130 * TICKS_PER_SECOND)
/* How long a UDP flow without a packet is remembered, unless its port says otherwise. */
#define UDP_IDLE_SECONDS 90
/* Ports tried for a flow whose own is taken. */
#define PORT_TRIES 16

static __always_inline struct flow *flow_of(const struct flow_key *key)
{
	struct flow_key copy = *key;

	return bpf_map_lookup_elem(&flows, &copy);
}

/*
 * Makes an entry what it says, or a new one. One that is there is written over where it is: the map would take another from its list and
 * give this one back. Of a packet by the same tuple that another processor has in hand just then nothing is promised anyway.
 */
static __always_inline bool set_flow(const struct flow_key *key, const struct flow *flow)
{
	struct flow *known = bpf_map_lookup_elem(&flows, key);

	if (!known)
		return bpf_map_update_elem(&flows, key, flow, UPDATE_ANY) == 0;
	*known = *flow;
	return true;
}

static __always_inline bool put_flow(const struct flow_key *key, const struct flow *flow, __u64 how)
{
	struct flow_key copy = *key;

	return bpf_map_update_elem(&flows, &copy, flow, how) == 0;
}

/* How a packet came here, and what is known about it from that. */
struct visit {
	union {
		struct addr origin;	/* of FORWARD, REPLY and DIRECT: the node that sent it. Of TASK: this node, to the task */
		struct {
			__u32 ifindex;
			__u32 out;
		} back;			/* of BACK: the way to the client, as in its flow */
	};
	struct parcel parcel;	/* of FORWARD */
	__u32 path;
	__u32 asked;		/* of a client's: flags of the address that it asked */
	__u32 tries;		/* that went unanswered before */
	__u32 silent;		/* number of the node that left the last one unanswered; 0 if none did */
};

static __always_inline bool is_loopback(const struct addr *addr)
{
	if (is_v4(addr))
		return (addr->w[3] & 0xff) == 127;
	return !(addr->w[0] | addr->w[1] | addr->w[2]) && addr->w[3] == bpf_htonl(1);
}

static __always_inline void turned(struct flow_key *to, const struct flow_key *key, __u8 kind)
{
	to->saddr = key->daddr;
	to->daddr = key->saddr;
	to->sport = key->dport;
	to->dport = key->sport;
	to->proto = key->proto;
	to->kind = kind;
	to->pad = 0;
}

/* Fills in the way back to where this packet came from. */
static __always_inline void way_back(struct __sk_buff *skb, const struct visit *visit, struct flow *flow)
{
	struct node *own = own_node();

	flow->ifindex = skb->ifindex;
	switch (visit->path) {
	case PATH_BACK:
		flow->out = visit->back.out;
		flow->ifindex = visit->back.ifindex;
		break;
	case PATH_TASK:
		flow->out = OUT_TASK;
		break;
	case PATH_CLIENT:
		flow->out = own && skb->ifindex == own->loopback ? OUT_LOOPBACK : OUT_UPLINK;
		break;
	default:
		flow->out = visit->path == PATH_DIRECT ? OUT_MEMBER : OUT_TUNNEL;
		flow->node = visit->origin;
	}
}

static __always_inline bool is_tunneled(const struct flow *flow)
{
	return flow->out == OUT_TUNNEL || flow->out == OUT_DIRECT;
}

/* Whether an entry is of a flow to this address and port that another node sends here. */
static __always_inline bool came_by(const struct flow *flow, const struct addr *asked, __be16 published)
{
	return is_tunneled(flow) && flow->far_port == published && same_addr(&flow->far, asked);
}

enum tuple_use { TUPLE_BUSY, TUPLE_FREE, TUPLE_LINGERS };

/*
 * Whether nobody can still mean this entry, so that a new flow may have its tuple. A connection that the task's side closed first is in
 * TIME_WAIT there: a SYN of an unrelated connection with the same tuple would be taken for an old one. Which side it was cannot be told from
 * here when both ends cross on the way, so that every connection of a minute ago may be.
 */
static __always_inline enum tuple_use tuple_use(const struct flow *flow, __u8 proto, __u32 now)
{
	__u32 idle = now - flow->seen;

	if (!has_handshake(proto) || !(flow->flags & FLOW_ANSWERED))
		return idle > UNANSWERED_TICKS ? TUPLE_FREE : TUPLE_BUSY;
	if (flow->flags & FLOW_RESET)
		return TUPLE_FREE;
	if (!(flow->flags & FLOW_CLOSED))
		return flow->flags & FLOW_CLIENT_FIN && flow->flags & FLOW_TASK_FIN && idle > TIME_WAIT_TICKS ? TUPLE_FREE : TUPLE_BUSY;
	if (proto == PROTO_TCP && idle <= TIME_WAIT_TICKS)
		return TUPLE_LINGERS;
	return TUPLE_FREE;
}

/* The end of an entry, by which it is taken over. */
static __always_inline __u64 *state_of(struct flow *flow)
{
	return (__u64 *)&flow->fin;
}

/*
 * Makes an entry that nobody means any more another flow's. Of two processors that want it for two flows only one may have it: the task's
 * kernel could not tell them apart.
 */
static __always_inline enum tuple_use take_over(struct flow *taken, struct flow *flow, __u8 proto, __u32 now)
{
	__u64 before = *(volatile __u64 *)state_of(taken);
	enum tuple_use use = tuple_use(taken, proto, now);

	if (use == TUPLE_BUSY)
		return use;
	flow->fin = taken->fin;
	return __sync_val_compare_and_swap(state_of(taken), before, *state_of(flow)) == before ? use : TUPLE_BUSY;
}

/* Whether two entries are of one flow. Which node sends it here may change: the one that was asked, or one that passed it on. */
static __always_inline bool same_way(const struct flow *a, const struct flow *b)
{
	if (a->far_port != b->far_port || a->port != b->port || !same_addr(&a->far, &b->far))
		return false;
	if (is_tunneled(a))
		return is_tunneled(b);
	return a->out == b->out && same_addr(&a->node, &b->node);
}

/*
 * Takes a tuple that no other flow has: with the client's own port if it is free there, with another one if it is not. The client's
 * address never changes for that. Leaves the port in `key`. Says TUPLE_BUSY when none was found, and TUPLE_LINGERS when the task's
 * kernel remembers another connection by the tuple, whose end `flow` then has in `fin`.
 */
static __always_inline enum tuple_use claim(struct flow_key *key, struct flow *flow)
{
	__u32 now = ticks();

	for (int i = 0; i < PORT_TRIES; i++) {
		enum tuple_use use = TUPLE_FREE;
		struct flow *taken;

		if (i > 0)
			key->dport = bpf_htons(1024 + bpf_get_prandom_u32() % 64512);
		taken = bpf_map_lookup_elem(&flows, key);
		if (!taken) {
			if (bpf_map_update_elem(&flows, key, flow, UPDATE_NOEXIST) == 0)
				return use;
			continue;
		}
		if (!same_way(taken, flow)) {
			use = take_over(taken, flow, key->proto, now);
			if (use == TUPLE_BUSY)
				continue;
		}
		*taken = *flow;
		return use;
	}
	count_drop(DROP_NO_PORT);
	return TUPLE_BUSY;
}

/* The sequence number after the packet's last byte and its FIN. */
static __always_inline __u32 sequence_end(struct __sk_buff *skb, const struct packet *packet)
{
	struct tcphdr tcp;

	if (packet->key.proto != PROTO_TCP || bpf_skb_load_bytes(skb, packet->l4, &tcp, sizeof(tcp)))
		return 0;
	return bpf_ntohl(tcp.seq) + packet->length - (tcp.offset >> 4) * 4 + 1;
}

/* Follows a connection's end. */
static __always_inline void note_end(struct __sk_buff *skb, const struct packet *packet, struct flow *flow, bool from_task)
{
	const __u8 both = FLOW_CLIENT_FIN | FLOW_TASK_FIN;

	if (packet->signals & TCP_RST) {
		flow->flags |= FLOW_RESET;
	} else if (packet->signals & TCP_FIN) {
		if (!from_task) {
			flow->fin = sequence_end(skb, packet);
			flow->flags |= flow->flags & FLOW_TASK_FIN ? FLOW_CLIENT_FIN : FLOW_CLIENT_FIN | FLOW_TASK_LAST;
		} else {
			flow->flags |= FLOW_TASK_FIN;
		}
	} else if ((flow->flags & both) == both) {
		flow->flags |= FLOW_CLOSED;
	}
}

/* What an entry is to be told: that a second has passed, that an end has come nearer, that the first answer has come. */
enum { NOTED_NOTHING = 0, NOTED_TIME = 1, NOTED_END = 2, NOTED_ANSWER = 4 };

/* Notes what the packet says about its flow. Whatever is not nothing, the flow's other entry on this node should know too. */
static __always_inline int note(struct __sk_buff *skb, const struct packet *packet, struct flow *flow, bool from_task)
{
	__u32 now = ticks();
	int noted = NOTED_NOTHING;
	/* A client that goes on after its SYN has had an answer, be it by another way. */
	bool answered = from_task || (has_handshake(packet->key.proto) && !(packet->signals & TCP_SYN));

	if (unlikely(answered && !(flow->flags & FLOW_ANSWERED))) {
		flow->flags |= FLOW_ANSWERED;
		flow->tries = 0;
		noted |= NOTED_ANSWER;
	}
	if (unlikely(packet->signals & (TCP_FIN | TCP_RST) || flow->flags & (FLOW_CLIENT_FIN | FLOW_TASK_FIN))) {
		note_end(skb, packet, flow, from_task);
		noted |= NOTED_END;
	}
	if (unlikely(now - flow->seen >= TICKS_PER_SECOND))
		noted |= NOTED_TIME;
	if (unlikely(noted))
		flow->seen = now;
	return noted;
}

/* Notes in the task's entry what its client's packet says, and makes it again if it is gone. */
__verified_once int tell_served(struct __sk_buff *skb, const struct packet *packet, const struct flow *asked)
{
	struct backend *backend;
	struct flow_key key;
	struct flow *known;
	struct flow flow;
	struct node *own = own_node();

	if (!packet || !asked || !own)
		return 0;
	backend = backend_at(asked->slot);
	if (!backend)
		return 0;
	asked_task_addr(&key.saddr, backend->addr, backend->flags & BACKEND_PREFIX, &packet->key.daddr, packet->version);
	key.daddr = packet->key.saddr;
	if (asked->flags & FLOW_CHANGED)
		mesh_addr(&key.daddr, own->overlay, packet->version);
	key.sport = asked->far_port;
	key.dport = asked->port;
	key.proto = packet->key.proto;
	key.kind = KIND_SERVED;
	key.pad = 0;
	known = bpf_map_lookup_elem(&flows, &key);
	if (known) {
		note(skb, packet, known, false);
		return 1;
	}
	flow = *asked;
	flow.far = packet->key.daddr;
	flow.far_port = packet->key.dport;
	flow.port = packet->key.sport;
	if (asked->flags & FLOW_CHANGED && !is_tunneled(asked))
		flow.node = packet->key.saddr;
	return bpf_map_update_elem(&flows, &key, &flow, UPDATE_NOEXIST) == 0;
}

/* The other way round: `client` is the packet's tuple turned to the client's own view. */
__verified_once int tell_asked(const struct packet *packet, const struct flow *served, const struct flow_key *client)
{
	struct flow *known;
	struct flow flow;

	if (!packet || !served || !client)
		return 0;
	known = flow_of(client);
	if (known) {
		/* Of a task's packet no byte is asked. */
		note(NULL, packet, known, true);
		return 1;
	}
	flow = *served;
	flow.far_port = packet->key.sport;
	flow.port = packet->key.dport;
	return put_flow(client, &flow, UPDATE_NOEXIST);
}
