/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Flows. Each has an entry per direction, keyed by how its packets look when they arrive and saying what becomes of them. Either entry
 * suffices to make the other again, so that pressure on the table loses neither half for longer than a second.
 */
#pragma once

#include "deliver.h"
#include "frontends.h"
#include "rewrite.h"

/* About a second. */
#define TICKS_PER_SECOND 954
/* A task's kernel remembers a connection that it closed itself for 60 s. */
#define TIME_WAIT_TICKS (62 * TICKS_PER_SECOND)
/* Nobody waits longer for an answer to a SYN or to a datagram. */
#define UNANSWERED_TICKS (130 * TICKS_PER_SECOND)
/* Ports tried for a flow whose own is taken. */
#define PORT_TRIES 16

/* Never 0, which stands for "not yet". */
static __always_inline __u32 ticks(void)
{
	return (__u32)(bpf_ktime_get_coarse_ns() >> 20) | 1;
}

/* How packets of the other direction look when they arrive. */
static __always_inline void other_key(const struct flow *flow, __u8 proto, struct flow_key *key)
{
	bool reverse = flow->flags & FLOW_REVERSE;

	key->saddr = flow->daddr;
	key->daddr = flow->saddr;
	key->sport = flow->dport;
	key->dport = flow->sport;
	key->proto = proto;
	key->pad = 0;
	switch (flow->out) {
	case OUT_TASK:
		key->path = PATH_TASK;
		key->origin = flow->ifindex;
		break;
	case OUT_TUNNEL:
		key->path = reverse ? PATH_FORWARD : PATH_REPLY;
		key->origin = flow->node;
		break;
	default:
		key->path = PATH_CLIENT;
		key->origin = 0;
	}
}

/* The way back to where this packet came from: what the other direction's entry says. */
static __always_inline void way_back(struct __sk_buff *skb, const struct flow_key *key, struct flow *back)
{
	struct ethhdr *eth = (void *)(long)skb->data;
	struct node *own = own_node();

	back->saddr = key->daddr;
	back->daddr = key->saddr;
	back->sport = key->dport;
	back->dport = key->sport;
	back->ifindex = skb->ifindex;
	switch (key->path) {
	case PATH_TASK:
		back->out = OUT_TASK;
		if ((void *)(eth + 1) <= (void *)(long)skb->data_end)
			__builtin_memcpy(back->mac, eth->src, 6);
		break;
	case PATH_CLIENT:
		back->out = own && skb->ifindex == own->loopback ? OUT_LOOPBACK : OUT_UPLINK;
		break;
	default:
		back->out = OUT_TUNNEL;
		back->node = key->origin;
	}
}

/* Makes the other direction's entry again if it is gone. */
__verified_once int restore_other(struct __sk_buff *skb, const struct flow_key *key, const struct flow *flow)
{
	struct flow back = {};
	struct flow_key other = {};

	if (!key || !flow)
		return 0;
	other_key(flow, key->proto, &other);
	if (bpf_map_lookup_elem(&flows, &other))
		return 0;
	way_back(skb, key, &back);
	back.flags = flow->flags & FLOW_REVERSE ? 0 : FLOW_REVERSE | FLOW_ANSWERED;
	back.slot = flow->slot;
	back.generation = flow->generation;
	back.published = flow->published;
	back.seen = ticks();
	return bpf_map_update_elem(&flows, &other, &back, UPDATE_NOEXIST) == 0;
}

/*
 * Whether nobody can still mean this entry, so that a new flow may have its tuple. A connection that the task's side closed first is in
 * TIME_WAIT there: a SYN of an unrelated connection with the same tuple would be taken for an old one.
 */
static __always_inline bool is_over(const struct flow *reverse, __u8 proto, __u32 now)
{
	struct flow_key key = {};
	struct flow *forward;
	__u32 idle = now - reverse->seen;

	if (proto != PROTO_TCP || !(reverse->flags & FLOW_ANSWERED))
		return idle > UNANSWERED_TICKS;
	if (reverse->flags & FLOW_RESET)
		return true;
	other_key(reverse, proto, &key);
	forward = bpf_map_lookup_elem(&flows, &key);
	if (!forward)
		return reverse->closing && idle > TIME_WAIT_TICKS;
	if (forward->flags & FLOW_RESET)
		return true;
	if (!forward->closing || !reverse->closing)
		return false;
	if ((__s32)(forward->closing - reverse->closing) < 0)
		return idle > 2 * TICKS_PER_SECOND;
	return idle > TIME_WAIT_TICKS;
}

static __always_inline bool same_way(const struct flow *a, const struct flow *b)
{
	return a->saddr == b->saddr && a->daddr == b->daddr && a->sport == b->sport && a->dport == b->dport && a->out == b->out &&
	       a->node == b->node;
}

/*
 * Takes a tuple towards the backend that no other flow has: the client's own port if it is free there, another one if it is not. The
 * client's address never changes for that. Fills in the forward entry's source port.
 */
__verified_once int claim(struct flow *forward, const struct flow *back, __u32 proto)
{
	struct flow_key key = {};
	__u32 now = ticks();

	if (!forward || !back)
		return 0;
	for (int i = 0; i < PORT_TRIES; i++) {
		struct flow *taken;

		if (i > 0)
			forward->sport = bpf_htons(1024 + bpf_get_prandom_u32() % 64512);
		other_key(forward, proto, &key);
		taken = bpf_map_lookup_elem(&flows, &key);
		if (!taken) {
			if (bpf_map_update_elem(&flows, &key, back, UPDATE_NOEXIST) == 0)
				return 1;
		} else if (same_way(taken, back) || is_over(taken, proto, now)) {
			if (bpf_map_update_elem(&flows, &key, back, UPDATE_ANY) == 0)
				return 1;
		}
	}
	return 0;
}

/* Opens a flow of these packets to a backend entry. `flags` may say FLOW_SECOND. */
__verified_once int open_flow(struct __sk_buff *skb, const struct flow_key *key, __u32 slot, __u32 published_and_flags)
{
	struct flow forward = {}, back = {};
	struct backend *backend = backend_at(slot);
	struct node *own = own_node();

	if (!key || !backend || !own || backend->state == BACKEND_GONE)
		return 0;
	way_back(skb, key, &back);
	back.flags = FLOW_REVERSE;
	forward.daddr = backend->addr;
	forward.dport = backend->port ? backend->port : key->dport;
	forward.saddr = key->saddr;
	forward.sport = key->sport;
	/* A task cannot answer a loopback address, nor itself. */
	if (back.out == OUT_LOOPBACK || key->saddr == backend->addr)
		forward.saddr = own->overlay;
	forward.out = backend->node ? OUT_TUNNEL : OUT_TASK;
	forward.node = backend->node;
	forward.ifindex = backend->ifindex;
	forward.flags = published_and_flags >> 16;
	__builtin_memcpy(forward.mac, backend->mac, 6);
	back.slot = forward.slot = slot;
	back.generation = forward.generation = backend->generation;
	back.published = forward.published = published_and_flags;
	back.seen = forward.seen = ticks();
	if (!claim(&forward, &back, key->proto)) {
		count_drop(DROP_NO_PORT);
		return 0;
	}
	count_flow(slot);
	return bpf_map_update_elem(&flows, key, &forward, UPDATE_ANY) == 0;
}

/* Notes what the packet says about its direction; about once a second also sees to the other one. */
static __always_inline void note(struct __sk_buff *skb, const struct flow_key *key, const struct packet *packet, struct flow *flow)
{
	__u32 now = ticks();

	if (flow->flags & FLOW_REVERSE && !(flow->flags & FLOW_ANSWERED))
		flow->flags |= FLOW_ANSWERED;
	if (unlikely(packet->tcp_flags & (TCP_FIN | TCP_RST | TCP_SYN))) {
		flow->seen = now;
		if (packet->tcp_flags & TCP_RST)
			flow->flags |= FLOW_RESET;
		else if (packet->tcp_flags & TCP_SYN) {
			flow->flags &= ~FLOW_RESET;
			flow->closing = 0;
		} else if (!flow->closing)
			flow->closing = now;
	}
	if (unlikely(now - flow->seen >= TICKS_PER_SECOND)) {
		flow->seen = now;
		restore_other(skb, key, flow);
	}
}

/* Sends a packet of a known flow on its way. */
static __always_inline int follow(struct __sk_buff *skb, const struct flow_key *key, const struct packet *packet, struct flow *flow)
{
	struct tuple to = { .saddr = flow->saddr, .daddr = flow->daddr, .sport = flow->sport, .dport = flow->dport };

	note(skb, key, packet, flow);
	count_packet(skb, flow->slot, flow->flags & FLOW_REVERSE);
	if (unlikely(packet->tcp_flags & TCP_SYN)) {
		struct node *own = own_node();

		if (own)
			clamp_segments(skb, packet->l4, own->mss);
	}
	if (!rewrite(skb, packet, &to))
		return drop(DROP_REWRITE);
	return deliver(skb, flow);
}
