/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* New flows. */
#pragma once

#include "follow.h"

/*
 * Decisions that are carried out at the end of a program, in one place for all, besides the verdicts: the verifier walks every way
 * through every call anew, and with several such places a program takes it seconds.
 */
enum {
	DECIDED_ASKED = 0x100,		/* follow the entry of the node that was asked */
	DECIDED_SERVED = 0x200,		/* follow the entry of the task's node */
	DECIDED_ENDS = 0x10,		/* and end what lingers in the task */
	DECIDED_REFUSE = 0x400,		/* and the reason */
	DECIDED_OPEN = 0x10000,		/* a flow to the backend entry with the number that is added */
};

/* How a flow to a backend begins: what both of its entries have in common. */
static __always_inline void start(struct __sk_buff *skb, const struct visit *visit, const struct backend *backend, __u32 slot,
				  struct flow *flow)
{
	way_back(skb, visit, flow);
	flow->slot = slot;
	flow->generation = backend->generation;
	flow->seen = ticks();
	flow->tries = visit->tries;
}

/*
 * The device by which this node answers a client of another node itself; 0 if it may not. Both nodes must be set to it, the probe
 * between them must have come through, and the client must be one that the other node reaches by the underlay.
 */
static __always_inline __u32 direct_device(const struct visit *visit)
{
	struct node *own = own_node();

	if (!own || !(own->flags & NODE_REPLY_DIRECT) || !(visit->parcel.flags & PARCEL_DIRECT) ||
	    !(address_flags(&visit->origin) & ADDRESS_DIRECT))
		return 0;
	return own->uplink;
}

/* The task's entry for a client's packet, with the client's own port. The task's address is in `key` already. */
static __always_inline void expected_key(struct flow_key *key, const struct addr *client, __be16 port, __u8 proto, __be16 target,
					 __u8 version)
{
	struct node *own = own_node();

	key->daddr = *client;
	/* A task cannot answer a loopback address, nor itself. */
	if (own && unlikely(is_loopback(client) || same_addr(client, &key->saddr)))
		mesh_addr(&key->daddr, own->overlay, version);
	key->sport = target;
	key->dport = port;
	key->proto = proto;
	key->kind = KIND_SERVED;
	key->pad = 0;
}

/* Makes a flow that has been started the task's, whose entry will be `key`. */
static __always_inline void as_served(const struct packet *packet, const struct visit *visit, const struct flow_key *key,
				      struct flow *flow)
{
	__u32 device = visit->path == PATH_FORWARD ? direct_device(visit) : 0;

	flow->far = packet->key.daddr;
	flow->far_port = packet->key.dport;
	flow->port = packet->key.sport;
	if (!same_addr(&key->daddr, &packet->key.saddr)) {
		flow->flags |= FLOW_CHANGED;
		if (!is_tunneled(flow))
			flow->node = packet->key.saddr;
	}
	if (device) {
		flow->out = OUT_DIRECT;
		flow->ifindex = device;
	}
}

/* Makes it the asked node's. */
static __always_inline void as_asked(const struct packet *packet, const struct visit *visit, __be16 target, __be16 port,
				     struct flow *flow)
{
	__builtin_memset(&flow->far, 0, sizeof(flow->far));
	if (is_tunneled(flow)) {
		flow->out = OUT_TUNNEL;
		flow->node = visit->origin;
	}
	flow->far_port = target;
	flow->port = port;
	if (port != packet->key.sport)
		count_event(EVENT_PORT_CHANGED);
}

/* Whether a task's kernel would not even refuse the packet. */
static __always_inline bool is_deaf(const struct backend *backend, const struct packet *packet)
{
	return packet->version == 6 && backend->flags & BACKEND_NO_IPV6;
}

/* Opens a flow to a backend, by a packet of a client that asked this node, or that this node passes on. */
__verified_once int open_asked(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit, __u32 slot)
{
	struct backend *backend = backend_at(slot);
	struct node *own = own_node();
	struct frontend *frontend;
	struct flow flow = {};
	struct flow_key key;
	__be16 target;
	bool paired;
	int use;

	if (!packet || !visit || !backend || !own || backend->state == BACKEND_GONE)
		return VERDICT_DROP;
	frontend = asked_frontend(packet, visit->path);
	if (!frontend)
		return VERDICT_DROP;
	target = frontend->target ? frontend->target : packet->key.dport;
	if (unlikely(is_deaf(backend, packet)))
		return DECIDED_REFUSE + DROP_NO_IPV6;
	start(skb, visit, backend, slot, &flow);
	flow.frontend = frontend->number;
	flow.idle = frontend->idle;
	paired = is_loopback(&packet->key.saddr) || is_loopback(&packet->key.daddr);
	key.dport = packet->key.sport;
	use = TUPLE_FREE;
	if (is_zero(&backend->node)) {
		asked_task_addr(&key.saddr, backend->addr, backend->flags & BACKEND_PREFIX, &packet->key.daddr, packet->version);
		expected_key(&key, &packet->key.saddr, packet->key.sport, packet->key.proto, target, packet->version);
		as_served(packet, visit, &key, &flow);
		paired = true;
	} else if (paired) {
		flow.flags |= FLOW_CHANGED;
		looped_key(&key, packet, own, packet->key.sport);
		looped_flow(&flow, packet, &flow);
	}
	/* Of a flow to another node the client's own tuple is enough, unless no task could answer it. */
	if (paired)
		use = claim(&key, &flow);
	if (use == TUPLE_BUSY)
		return VERDICT_DROP;
	as_asked(packet, visit, target, key.dport, &flow);
	count_flow(slot, is_tunneled(&flow), flow.frontend);
	key = packet->key;
	if (!set_flow(&key, &flow))
		return VERDICT_DROP;
	return use == TUPLE_LINGERS ? DECIDED_ASKED + DECIDED_ENDS : DECIDED_ASKED;
}

/* Whether a frontend answers this client by the address that it used. */
static __always_inline bool answers(const struct frontend *frontend, const struct packet *packet, const struct visit *visit)
{
	if (frontend->flags & FRONTEND_SILENT)
		return false;
	if (frontend->flags & FRONTEND_HOST && !(visit->asked & ADDRESS_OWN))
		return false;
	if (frontend->listen && !is_listed(frontend->listen, &packet->key.daddr))
		return false;
	return !frontend->sources || is_listed(frontend->sources, &packet->key.saddr);
}

/*
 * Whether a socket of the node itself is meant: a connection that a process made from this port before it was published, or an answer to
 * one that it makes now.
 */
__verified_once int is_for_socket(struct __sk_buff *skb, const struct flow_key *key)
{
	struct {
		__u32 addrs[8];
		struct ports ports;
	} v6;
	struct {
		__u32 addrs[2];
		struct ports ports;
	} v4;
	void *found;

	if (!key)
		return 0;
	if (is_v4(&key->saddr)) {
		v4.addrs[0] = key->saddr.w[3];
		v4.addrs[1] = key->daddr.w[3];
		v4.ports.sport = key->sport;
		v4.ports.dport = key->dport;
		found = bpf_skc_lookup_tcp(skb, &v4, sizeof(v4), -1, 0);
	} else {
		__builtin_memcpy(v6.addrs, &key->saddr, sizeof(v6.addrs));
		v6.ports.sport = key->sport;
		v6.ports.dport = key->dport;
		found = bpf_skc_lookup_tcp(skb, &v6, sizeof(v6), -1, 0);
	}
	if (!found)
		return 0;
	bpf_sk_release(found);
	return 1;
}

/* A client asks a frontend by an address of this node, or a task by one of any node. */
__verified_once int ask(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit)
{
	struct frontend *frontend;
	int slot;

	if (!packet || !visit)
		return VERDICT_NEXT;
	frontend = asked_frontend(packet, visit->path);
	if (!frontend || !answers(frontend, packet, visit))
		return VERDICT_NEXT;
	if (packet->key.proto == PROTO_TCP && visit->path == PATH_CLIENT && !opens(packet) && is_for_socket(skb, &packet->key))
		return VERDICT_NEXT;
	/* A reset of something unknown needs neither a flow nor an answer. */
	if (packet->signals & TCP_RST)
		return VERDICT_DROP;
	slot = pick(&packet->key, frontend, visit->tries, visit->silent);
	if (slot < 0)
		return DECIDED_REFUSE + DROP_NO_BACKEND;
	return DECIDED_OPEN + slot;
}

/*
 * Second chance: whoever sent this packet had not heard yet that the task takes no new flows. One that is to stop itself is better than
 * nobody, when the task is gone (`gone`).
 */
__verified_once int pass_on(const struct packet *packet, const struct visit *visit, __u32 not, __u32 gone)
{
	struct frontend *frontend;
	struct backend *backend;

	if (!packet || !visit)
		return VERDICT_DROP;
	frontend = asked_frontend(packet, visit->path);
	if (!frontend)
		return VERDICT_NEXT;
	for (int i = 0; i < 3; i++) {
		int slot = pick(&packet->key, frontend, visit->tries + i, visit->silent);

		if (slot < 0)
			return VERDICT_NEXT;
		backend = backend_at(slot);
		if ((__u32)slot == not || !backend)
			continue;
		if (backend->state != BACKEND_READY && !(gone && backend->state == BACKEND_DRAINING))
			continue;
		count_event(EVENT_SECOND_CHANCE);
		return DECIDED_OPEN + slot;
	}
	return VERDICT_NEXT;
}

/*
 * Opens a flow to a task of this node, by a packet that another node sent. One entry is enough, unless the client's port is taken:
 * its packets do not say the new one, so they need an entry of their own.
 */
__verified_once int open_here(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit, __u32 slot,
			      struct flow_key *claimed)
{
	struct backend *backend = backend_at(slot);
	int decided = DECIDED_SERVED, use;
	struct flow flow = {};
	struct flow_key key;

	if (!packet || !visit || !claimed || !backend)
		return VERDICT_DROP;
	start(skb, visit, backend, slot, &flow);
	key = *claimed;
	as_served(packet, visit, &key, &flow);
	use = claim(&key, &flow);
	claimed->dport = key.dport;
	if (use == TUPLE_BUSY)
		return VERDICT_DROP;
	count_flow(slot, true, 0);
	if (key.dport != packet->key.sport) {
		as_asked(packet, visit, visit->parcel.target, key.dport, &flow);
		decided = DECIDED_ASKED;
		key = packet->key;
		if (!set_flow(&key, &flow))
			return VERDICT_DROP;
	}
	return use == TUPLE_LINGERS ? decided + DECIDED_ENDS : decided;
}

/*
 * This node was asked, and the node that it chose has passed the flow on to a task of this one. From now on it is a flow of this node alone:
 * otherwise it would end with the task that was chosen first. Of a node that has been given up for another one nothing is taken.
 */
__verified_once int take_back(const struct packet *packet, struct visit *visit, const struct flow *asked)
{
	struct backend *backend, *chosen;
	__u32 slot = ~0;

	if (!packet || !visit || !asked)
		return VERDICT_DROP;
	if (!(address_flags(&visit->origin) & ADDRESS_TRUSTED))
		return drop(DROP_NOT_A_MEMBER);
	backend = local_task(visit->parcel.task, &slot);
	/* What was on its way when the flow was taken back. */
	if (backend && asked->slot == slot && asked->generation == backend->generation)
		return DECIDED_ASKED;
	chosen = backend_at(asked->slot);
	if (!chosen || !same_addr(&chosen->node, &visit->origin))
		return drop(DROP_UNKNOWN_FLOW);
	if (!backend || backend->state == BACKEND_GONE)
		return DECIDED_REFUSE + DROP_UNKNOWN_TASK;
	visit->path = PATH_BACK;
	visit->back.out = asked->out;
	visit->back.ifindex = asked->ifindex;
	visit->tries = asked->tries;
	return DECIDED_OPEN + slot;
}

/* A packet of a client of another node for a task of this one, by a flow that is not known here, or has to be opened again. */
__verified_once int accept(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit, __u32 second,
			   struct flow_key *key)
{
	struct backend *backend;
	__u32 slot = ~0;
	bool fresh, gone;
	int decided;

	if (!packet || !visit || !key)
		return VERDICT_DROP;
	fresh = opens(packet);
	if (!(address_flags(&visit->origin) & ADDRESS_TRUSTED))
		return drop(DROP_NOT_A_MEMBER);
	backend = local_task(visit->parcel.task, &slot);
	gone = !backend || backend->state == BACKEND_GONE;
	if (fresh && !second && (gone || backend->state != BACKEND_READY)) {
		decided = pass_on(packet, visit, slot, gone);
		if (decided != VERDICT_NEXT)
			return decided;
	}
	if (gone)
		return packet->signals & TCP_RST ? VERDICT_DROP : DECIDED_REFUSE + DROP_UNKNOWN_TASK;
	/* The nodes do not know the same of the task's network yet. */
	if (unlikely(!is_task_addr(&key->saddr, backend, packet->version)))
		return DECIDED_REFUSE + DROP_UNKNOWN_TASK;
	if (unlikely(is_deaf(backend, packet)))
		return DECIDED_REFUSE + DROP_NO_IPV6;
	return open_here(skb, packet, visit, slot, key);
}

/* Carries out what was decided. `flow` may be NULL for one that has just been opened; `served` is its key on the task's node. */
static __always_inline int finish(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit,
				  const struct flow_key *served, struct flow *flow, int decided)
{
	bool ends;

	if (unlikely(decided >= DECIDED_OPEN))
		decided = open_asked(skb, packet, visit, decided - DECIDED_OPEN);
	ends = decided & DECIDED_ENDS;
	if (unlikely(decided >= DECIDED_REFUSE))
		return refuse(skb, packet, visit, decided - DECIDED_REFUSE);
	if (unlikely(decided < DECIDED_ASKED))
		return decided;
	if (decided & DECIDED_ASKED) {
		if (unlikely(!flow))
			flow = flow_of(&packet->key);
		if (!flow)
			return VERDICT_DROP;
		decided = follow_asked(skb, packet, flow, ends);
		return unlikely(decided == FOLLOWED_TOO_BIG) ? refuse_size(skb, packet, visit, 0) : decided;
	}
	if (!served)
		return VERDICT_DROP;
	if (unlikely(!flow))
		flow = flow_of(served);
	return flow ? follow_served(skb, packet, served, flow, ends) : VERDICT_DROP;
}
