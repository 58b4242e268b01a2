/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Tasks and the world outside: behind the node's own address, by a port that the node's own sockets do not use. The node needs no
 * forwarding, and no rule of a firewall, for that. A task that asks the node itself comes by the very address that it asked, and answers
 * come by the loopback device.
 */
#pragma once

#include "overlay.h"

/* How long a connection without a packet is remembered. */
#define TCP_IDLE_TICKS (5 * 86400 * TICKS_PER_SECOND)
/* What may still be on its way after the end. */
#define AFTERWARDS_TICKS (2 * TICKS_PER_SECOND)
/* An entry of a task's side is given up before the port can be another's. */
#define EGRESS_IDLE_SECONDS (UDP_IDLE_SECONDS - 5)

static __always_inline bool is_ended(const struct flow *flow)
{
	const __u8 both = FLOW_CLIENT_FIN | FLOW_TASK_FIN;

	return flow->flags & FLOW_RESET || (flow->flags & both) == both;
}

/*
 * Whether nobody can still mean this entry, so that another flow may have its port. Here the task is the client. If it closed first, only
 * its own kernel remembers; if the other end did, that one does, and may drop another connection by the same tuple: that is only risked
 * where no better port is found (`urgent`).
 */
static __always_inline bool is_over(const struct flow *flow, __u8 proto, bool urgent)
{
	struct backend *backend = backend_at(flow->slot);
	__u32 idle = ticks() - flow->seen;

	if (backend_state(backend, flow) == BACKEND_GONE)
		return true;
	if (!has_handshake(proto))
		return idle > UDP_IDLE_SECONDS * TICKS_PER_SECOND;
	if (!(flow->flags & FLOW_ANSWERED))
		return idle > UNANSWERED_TICKS;
	if (!is_ended(flow))
		return idle > TCP_IDLE_TICKS;
	if (flow->flags & (FLOW_RESET | FLOW_TASK_LAST) || urgent)
		return idle > AFTERWARDS_TICKS;
	return idle > TIME_WAIT_TICKS;
}

/* Takes a port that nobody else has towards the same end outside. `answers` is the key of what comes back; the port is left in it. */
__verified_once int claim_port(struct __sk_buff *skb, struct flow_key *answers, const struct flow *flow)
{
	struct flow_key key;
	struct frame *room;
	__u32 zero = 0;

	if (!answers || !flow)
		return 0;
	/* Before 6.6 what a global function was given is no value for a map, and the stack has no room for a copy. */
	room = bpf_map_lookup_elem(&scratch, &zero);
	if (!room)
		return 0;
	*(struct flow *)room = *flow;
	key = *answers;
	for (int i = 0; i < PORT_TRIES; i++) {
		struct flow *taken;
		__u64 before;

		key.dport = bpf_htons(EGRESS_FIRST + bpf_get_prandom_u32() % EGRESS_PORTS);
		if (is_published(key.proto, key.dport) || (key.proto == PROTO_TCP && is_for_socket(skb, &key)))
			continue;
		answers->dport = key.dport;
		taken = bpf_map_lookup_elem(&flows, &key);
		if (!taken) {
			if (bpf_map_update_elem(&flows, &key, room, UPDATE_NOEXIST) == 0)
				return 1;
			continue;
		}
		before = *(volatile __u64 *)state_of(taken);
		if (!is_over(taken, key.proto, i >= PORT_TRIES / 2))
			continue;
		/* Of two processors only one may have it. */
		if (__sync_val_compare_and_swap(state_of(taken), before, 0) != before)
			continue;
		*taken = *flow;
		return 1;
	}
	count_drop(DROP_NO_PORT);
	return 0;
}

/* How the node would send something there; nothing when it would not. */
static __always_inline struct way *way_to(const struct addr *addr)
{
	struct way_key key = { .bits = 128, .addr = *addr };

	return bpf_map_lookup_elem(&ways, &key);
}

/* The key of the answers to what a task sends by this entry. */
static __always_inline void answers_key(struct flow_key *key, const struct packet *packet, const struct addr *by, __be16 port)
{
	key->saddr = packet->key.daddr;
	key->daddr = *by;
	key->sport = packet->key.dport;
	key->dport = port;
	key->proto = packet->key.proto;
	key->kind = KIND_MASQUERADED;
	key->pad = 0;
}

static __always_inline void as_masqueraded(const struct packet *packet, struct flow *flow)
{
	flow->far = packet->key.saddr;
	flow->port = packet->key.sport;
}

static __always_inline void as_egress(const struct addr *by, __be16 port, struct flow *flow)
{
	flow->far = *by;
	flow->port = port;
}

/* Notes in the entry of the answers what the task's packet says, and makes it again if it is gone. 0 when it is another's by now. */
__verified_once int tell_masqueraded(struct __sk_buff *skb, const struct packet *packet, const struct flow *egress)
{
	struct flow_key key;
	struct flow *known;
	struct flow flow;

	if (!packet || !egress)
		return 0;
	answers_key(&key, packet, &egress->far, egress->port);
	known = bpf_map_lookup_elem(&flows, &key);
	if (known) {
		if (known->port != packet->key.sport || !same_addr(&known->far, &packet->key.saddr))
			return 0;
		note(skb, packet, known, false);
		return 1;
	}
	flow = *egress;
	as_masqueraded(packet, &flow);
	return bpf_map_update_elem(&flows, &key, &flow, UPDATE_NOEXIST) == 0;
}

/* The other way round. */
__verified_once int tell_egress(const struct packet *packet, const struct flow *masqueraded)
{
	struct flow_key key;
	struct flow *known;
	struct flow flow;

	if (!packet || !masqueraded)
		return 0;
	key.saddr = masqueraded->far;
	key.daddr = packet->key.saddr;
	key.sport = masqueraded->port;
	key.dport = packet->key.sport;
	key.proto = packet->key.proto;
	key.kind = KIND_EGRESS;
	key.pad = 0;
	known = bpf_map_lookup_elem(&flows, &key);
	if (known) {
		/* Of the world's packet no byte is asked. */
		note(NULL, packet, known, true);
		return 1;
	}
	flow = *masqueraded;
	as_egress(&packet->key.daddr, packet->key.dport, &flow);
	return bpf_map_update_elem(&flows, &key, &flow, UPDATE_NOEXIST) == 0;
}

/* Whether an entry is still good for what the task sends. */
static __always_inline bool goes_on(struct __sk_buff *skb, const struct packet *packet, const struct flow *flow)
{
	struct backend *backend = backend_at(flow->slot);

	if (backend_state(backend, flow) == BACKEND_GONE || backend->ifindex != skb->ifindex || !(backend->flags & BACKEND_EGRESS))
		return false;
	if (!has_handshake(packet->key.proto))
		return !is_idle(flow, EGRESS_IDLE_SECONDS, ticks());
	return !opens(packet) || !is_ended(flow);
}

/* Another network, another tuple, and one hop less. */
static __always_inline bool take_hop(struct __sk_buff *skb, const struct packet *packet)
{
	void *network = (void *)(long)skb->data + sizeof(struct ethhdr);
	struct ipv6hdr *v6 = network;
	struct iphdr *v4 = network;
	__u32 check;

	if (packet->version == 4) {
		if ((void *)(v4 + 1) > (void *)(long)skb->data_end || v4->ttl <= 1)
			return false;
		v4->ttl -= 1;
		check = v4->check + bpf_htons(0x0100);
		v4->check = check + (check >= 0xffff);
		return true;
	}
	if ((void *)(v6 + 1) > (void *)(long)skb->data_end || v6->hops <= 1)
		return false;
	v6->hops -= 1;
	bpf_csum_update(skb, (__u16)~bpf_htons(0x0001));
	return true;
}

/* As `rewrite`, also for echo requests and their answers, whose identifier is the port that is not 0. */
__verified_once int translate(struct __sk_buff *skb, const struct packet *packet, const struct tuple *to)
{
	struct icmphdr icmp;
	__be32 before;
	__u32 check;
	__s64 delta;

	if (!packet || !to)
		return 0;
	if (!is_icmp(packet))
		return rewrite(skb, packet, to);
	check = packet->l4 + __builtin_offsetof(struct icmphdr, check);
	delta = addresses_delta(&packet->key, to);
	if (bpf_skb_load_bytes(skb, packet->l4, &icmp, sizeof(icmp)) ||
	    (packet->version == 6 && !patch_pseudo(skb, packet, check, delta, 0)))
		return 0;
	before = icmp.rest;
	set_echo_id(&icmp, to->sport | to->dport);
	if (bpf_l4_csum_replace(skb, check, before, icmp.rest, sizeof(before)) ||
	    bpf_skb_store_bytes(skb, packet->l4 + __builtin_offsetof(struct icmphdr, rest), &icmp.rest, sizeof(icmp.rest), 0))
		return 0;
	return rewrite_network(skb, packet, to, delta);
}

/* Decided, besides the others: the task is told what its packet lacks. Carried out by `tell_task`. */
enum {
	DECIDED_HOPS = 0x1000,
	DECIDED_TO_NODE = 0x2000,	/* not so: the node itself gets it */
	DECIDED_SIZE = 0x20000000,	/* and how big it may be */
};

/* The end of what a task sends: a verdict, or the task is told that its packet goes nowhere. */
static __always_inline int tell_task(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit, int decided)
{
	if (decided < DECIDED_REFUSE)
		return decided;
	if (decided == DECIDED_TO_NODE)
		return VERDICT_NEXT;
	if (decided >= DECIDED_SIZE)
		return refuse_size(skb, packet, visit, decided - DECIDED_SIZE);
	if (decided == DECIDED_HOPS)
		return refuse_hops(skb, packet, visit, &visit->origin);
	return refuse(skb, packet, visit, decided - DECIDED_REFUSE);
}

/* A task's packet on its way, by its flow's entry. */
__verified_once int go_out(struct __sk_buff *skb, const struct packet *packet, struct visit *visit, struct flow *flow)
{
	__u32 mtu, ifindex;
	struct tuple to;

	if (!packet || !visit || !flow)
		return VERDICT_DROP;
	ifindex = flow->ifindex;
	mtu = flow->frontend;
	tuple_of(&to, &packet->key);
	to.saddr = flow->far;
	to.sport = flow->port;
	if (!ifindex)
		return translate(skb, packet, &to) ? DECIDED_TO_NODE : drop(DROP_REWRITE);
	if (unlikely(!skb->gso_size && skb->len > mtu + sizeof(struct ethhdr)))
		return DECIDED_SIZE + mtu;
	if (unlikely(packet->signals & TCP_SYN))
		clamp_to(skb, packet, mtu);
	if (unlikely(!take_hop(skb, packet))) {
		visit->origin = to.saddr;
		return DECIDED_HOPS;
	}
	return translate(skb, packet, &to) ? bpf_redirect_neigh(ifindex, NULL, 0, 0) : drop(DROP_REWRITE);
}

/* A packet of a flow that a task has with the world outside, or with its node. NEXT when it has none, or that is over. */
__verified_once int follow_egress(struct __sk_buff *skb, const struct packet *packet, struct visit *visit)
{
	struct flow_key key;
	struct flow *flow;
	int noted;

	if (!packet || !visit)
		return VERDICT_DROP;
	key = packet->key;
	key.kind = KIND_EGRESS;
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow || !goes_on(skb, packet, flow))
		return VERDICT_NEXT;
	/* What leads elsewhere by now is begun anew, unless the other end would not know it again. */
	if (unlikely(ticks() - flow->seen >= TICKS_PER_SECOND && flow->ifindex)) {
		struct way *way = way_to(&packet->key.daddr);

		if (is_on_overlay(&packet->key.daddr) || (!has_handshake(key.proto) && (!way || way->ifindex != flow->ifindex)))
			return VERDICT_NEXT;
		if (way && way->ifindex == flow->ifindex)
			flow->frontend = way->mtu;
	}
	noted = note(skb, packet, flow, false);
	if (unlikely(noted) && !tell_masqueraded(skb, packet, flow))
		return VERDICT_NEXT;
	return go_out(skb, packet, visit, flow);
}

/* By which address, and through which device, a new flow goes out. What is not 0 is a refusal. */
static __always_inline int find_way(const struct packet *packet, struct visit *visit, struct flow *flow)
{
	struct way *way;

	if (visit->asked & ADDRESS_OWN) {
		/* Devices of tasks take no IPv6 in. */
		if (packet->version == 6)
			return DECIDED_REFUSE + DROP_NO_WAY_OUT;
		visit->origin = packet->key.daddr;
		return 0;
	}
	way = way_to(&packet->key.daddr);
	if (!way)
		return DECIDED_REFUSE + DROP_NO_ROUTE;
	visit->origin = way->source;
	flow->ifindex = way->ifindex;
	flow->frontend = way->mtu;
	return 0;
}

/* A task begins to talk to the world outside, or to the node itself: makes the entries. What is not 0 is a refusal, or the end of it. */
__verified_once int open_egress(struct __sk_buff *skb, const struct packet *packet, struct visit *visit)
{
	struct backend *sender;
	struct flow_key key;
	struct flow flow = {};
	__u32 slot;
	int decided;

	if (!packet || !visit)
		return VERDICT_DROP;
	sender = sender_of(skb, packet, &slot);
	if (!sender)
		return drop(DROP_SPOOFED);
	if (!(sender->flags & BACKEND_EGRESS))
		return DECIDED_REFUSE + DROP_NO_WAY_OUT;
	if (!opens(packet))
		return DECIDED_REFUSE + DROP_UNKNOWN_FLOW;
	decided = find_way(packet, visit, &flow);
	if (decided)
		return decided;
	flow.slot = slot;
	flow.generation = sender->generation;
	flow.seen = ticks();
	answers_key(&key, packet, &visit->origin, 0);
	as_masqueraded(packet, &flow);
	if (!claim_port(skb, &key, &flow))
		return VERDICT_DROP;
	as_egress(&visit->origin, key.dport, &flow);
	key = packet->key;
	key.kind = KIND_EGRESS;
	if (!set_flow(&key, &flow))
		return VERDICT_DROP;
	count_event(EVENT_WENT_OUT);
	return 0;
}

/* Whether a packet may be an answer to a task: what everybody else's has to pay for. */
static __always_inline bool may_be_answer(__be16 port)
{
	return bpf_ntohs(port) >= EGRESS_FIRST;
}

/* The world answers a task, or the node itself does. NEXT when it is somebody else's. `l2` is the size of the frame's header. */
__verified_once int from_outside(struct __sk_buff *skb, struct packet *packet, __u32 l2)
{
	struct backend *backend;
	struct flow_key key;
	struct flow *flow;
	struct tuple to;
	int noted;

	if (!packet)
		return VERDICT_NEXT;
	key = packet->key;
	key.kind = KIND_MASQUERADED;
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow)
		return VERDICT_NEXT;
	backend = backend_at(flow->slot);
	if (backend_state(backend, flow) == BACKEND_GONE)
		return VERDICT_NEXT;
	if (!l2 && !frame_packet(skb, packet))
		return VERDICT_DROP;
	noted = note(skb, packet, flow, true);
	if (unlikely(noted))
		tell_egress(packet, flow);
	tuple_of(&to, &key);
	to.daddr = flow->far;
	to.dport = flow->port;
	if (flow->ifindex && !take_hop(skb, packet))
		return VERDICT_DROP;
	if (unlikely(packet->signals & TCP_SYN))
		clamp(skb, packet);
	return translate(skb, packet, &to) ? to_task(skb, backend) : drop(DROP_REWRITE);
}

/* The same of ICMP: answers to echo requests, and errors. */
static __always_inline int icmp_from_client(struct __sk_buff *skb, struct packet *packet, __u32 l2)
{
	struct icmphdr icmp;

	if (read_echo(skb, packet, false, &icmp)) {
		packet->key.sport = 0;
		packet->key.dport = echo_id(&icmp);
		return may_be_answer(packet->key.dport) ? from_outside(skb, packet, l2) : VERDICT_NEXT;
	}
	if (!l2 && !(is_about_answer(skb, packet) && frame_packet(skb, packet)))
		return VERDICT_NEXT;
	return error_from_client(skb, packet);
}
