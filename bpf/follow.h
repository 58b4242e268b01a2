/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Packets of known flows. */
#pragma once

#include "refuse.h"

/* What to do with a client's packet whose flow is known. */
enum known { KNOWN_GOOD, KNOWN_REOPEN, KNOWN_GONE };

static __always_inline __u32 backend_state(const struct backend *backend, const struct flow *flow)
{
	return likely(backend && backend->generation == flow->generation) ? backend->state : BACKEND_GONE;
}

static __always_inline bool is_idle(const struct flow *flow, __u32 seconds, __u32 now)
{
	return now - flow->seen > seconds * TICKS_PER_SECOND;
}

/* A SYN on a flow that is known: a new connection by an old tuple, or one that comes again because nobody has answered. */
static __always_inline enum known judge_syn(struct flow *flow, __u32 state, bool asked)
{
	const __u8 over = FLOW_RESET | FLOW_CLIENT_FIN | FLOW_TASK_FIN;

	if (state != BACKEND_READY || flow->flags & over)
		return KNOWN_REOPEN;
	if (flow->flags & FLOW_ANSWERED || !asked)
		return KNOWN_GOOD;
	/* Not its first one any more: another backend may do better. What the silent one may still say will be dropped. */
	flow->tries += 1;
	suspect(flow->slot, flow->seen);
	count_event(EVENT_CHOSEN_AGAIN);
	return KNOWN_REOPEN;
}

/* `asked`: the entry is of the node that was asked, or passes the flow on, and can choose another backend. */
static __always_inline enum known judge(const struct packet *packet, struct flow *flow, const struct backend *backend, bool asked)
{
	__u32 state = backend_state(backend, flow), now;

	if (unlikely(!backend))
		return KNOWN_GONE;
	if (!has_handshake(packet->key.proto)) {
		now = ticks();
		if (state != BACKEND_READY || flow->idle == IDLE_AT_ONCE || (asked && is_suspected(flow->slot, now)))
			return KNOWN_REOPEN;
		return is_idle(flow, flow->idle ? flow->idle : UDP_IDLE_SECONDS, now) ? KNOWN_REOPEN : KNOWN_GOOD;
	}
	if (unlikely(opens(packet)))
		return judge_syn(flow, state, asked);
	if (unlikely(flow->idle && is_idle(flow, flow->idle, ticks())))
		return KNOWN_GONE;
	return likely(state != BACKEND_GONE) ? KNOWN_GOOD : KNOWN_GONE;
}

/* What is known of earlier tries when a flow is opened again. */
static __always_inline void try_again(struct visit *visit, const struct flow *flow)
{
	struct backend *backend;

	if (!flow || !flow->tries)
		return;
	visit->tries = flow->tries;
	backend = backend_at(flow->slot);
	visit->silent = backend ? backend->peer : 0;
}

/* Lowers the size of a connection's segments to what fits into packets of `mtu` bytes. */
static __always_inline void clamp_to(struct __sk_buff *skb, const struct packet *packet, __u32 mtu)
{
	__u32 headers = packet->version == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);

	if (packet->key.proto == PROTO_TCP && packet->fragment != FRAGMENT_LATER)
		clamp_segments(skb, packet->l4, mtu - headers - sizeof(struct tcphdr));
}

static __always_inline void clamp(struct __sk_buff *skb, const struct packet *packet)
{
	struct node *own = own_node();

	if (own)
		clamp_to(skb, packet, own->mtu);
}

/*
 * The task's kernel remembers another connection by this tuple and would take our SYN for part of it. That connection has ended, both
 * sides know, and its last sequence number is known too; a reset with that number ends it there (RFC 1337 calls it the assassination of
 * TIME-WAIT; its hazard is an old duplicate, which only the same client's former segments could be). The reset is the SYN in other
 * clothes: without options, so that no timestamp speaks against it. Both go through the queue of one device and keep their order.
 */
__verified_once int end_time_wait(struct __sk_buff *skb, __u32 l4, __u32 fin, __u32 ifindex)
{
	__u32 check = l4 + __builtin_offsetof(struct tcphdr, check), seq_at = l4 + __builtin_offsetof(struct tcphdr, seq);
	__u32 flags_at = l4 + __builtin_offsetof(struct tcphdr, offset);
	__be32 seq, last = bpf_htonl(fin);
	__u16 flags, rst = 5 << 4 | TCP_RST << 8;

	if (bpf_skb_load_bytes(skb, seq_at, &seq, sizeof(seq)) || bpf_skb_load_bytes(skb, flags_at, &flags, sizeof(flags)))
		return -1;
	bpf_l4_csum_replace(skb, check, seq, last, sizeof(seq));
	bpf_l4_csum_replace(skb, check, flags, rst, sizeof(flags));
	bpf_skb_store_bytes(skb, seq_at, &last, sizeof(last), 0);
	bpf_skb_store_bytes(skb, flags_at, &rst, sizeof(rst), 0);
	bpf_clone_redirect(skb, ifindex, 0);
	bpf_l4_csum_replace(skb, check, last, seq, sizeof(seq));
	bpf_l4_csum_replace(skb, check, rst, flags, sizeof(flags));
	bpf_skb_store_bytes(skb, seq_at, &seq, sizeof(seq), 0);
	bpf_skb_store_bytes(skb, flags_at, &flags, sizeof(flags), 0);
	count_event(EVENT_TIME_WAIT_ENDED);
	return 0;
}

/* A client's packet into its task, as `to` says. `ends`: something in the task has to end first. */
__verified_once int enter_task(struct __sk_buff *skb, const struct packet *packet, const struct flow *flow, const struct tuple *to,
			       __u32 ends)
{
	struct backend *backend;

	if (!packet || !flow || !to)
		return VERDICT_DROP;
	backend = backend_at(flow->slot);
	if (!backend)
		return VERDICT_DROP;
	if (unlikely(packet->signals & TCP_SYN))
		clamp(skb, packet);
	if (!rewrite(skb, packet, to))
		return drop(DROP_REWRITE);
	if (likely(!ends))
		return to_task(skb, backend);
	if (!address_task(skb, backend))
		return drop(DROP_REWRITE);
	end_time_wait(skb, packet->l4, flow->fin, backend->ifindex);
	return bpf_redirect(backend->ifindex, 0);
}

/* How answers to a client on the loopback device come back from another node: between the node's own addresses in the mesh. */
static __always_inline void looped_key(struct flow_key *key, const struct packet *packet, const struct node *own, __be16 port)
{
	mesh_addr(&key->saddr, own->overlay, packet->version);
	key->daddr = key->saddr;
	key->sport = packet->key.dport;
	key->dport = port;
	key->proto = packet->key.proto;
	key->kind = KIND_LOOPED;
	key->pad = 0;
}

static __always_inline void looped_flow(struct flow *flow, const struct packet *packet, const struct flow *asked)
{
	if (flow != asked)
		*flow = *asked;
	flow->far = packet->key.daddr;
	flow->node = packet->key.saddr;
	flow->port = packet->key.sport;
}

/* Makes such an entry again if it is gone. */
__verified_once int keep_looped(const struct packet *packet, const struct flow *asked)
{
	struct node *own = own_node();
	struct flow_key key;
	struct flow flow;

	if (!packet || !asked || !own)
		return 0;
	looped_key(&key, packet, own, asked->port);
	looped_flow(&flow, packet, asked);
	return bpf_map_update_elem(&flows, &key, &flow, UPDATE_NOEXIST) == 0;
}

/* Not a verdict: the packet does not fit into the overlay. */
enum { FOLLOWED_TOO_BIG = 0x20 };

/* A client's packet, on the node that was asked or that passes it on. */
__verified_once int follow_asked(struct __sk_buff *skb, const struct packet *packet, struct flow *flow, __u32 ends)
{
	struct node *own = own_node();
	struct backend *backend;
	struct tuple to;
	struct parcel parcel = {};
	int noted;

	if (!packet || !flow || !own)
		return VERDICT_DROP;
	backend = backend_at(flow->slot);
	if (!backend)
		return VERDICT_DROP;
	noted = note(skb, packet, flow, false);
	if (unlikely(noted & NOTED_ANSWER))
		trust(backend, flow->slot, flow->seen);
	count_packet(skb, flow, is_tunneled(flow), false);
	tuple_of(&to, &packet->key);
	if (flow->flags & FLOW_CHANGED)
		mesh_addr(&to.saddr, own->overlay, packet->version);
	to.sport = flow->port;
	if (is_zero(&backend->node)) {
		if (unlikely(noted))
			tell_served(skb, packet, flow);
		asked_task_addr(&to.daddr, backend->addr, backend->flags & BACKEND_PREFIX, &packet->key.daddr, packet->version);
		to.dport = flow->far_port;
		return enter_task(skb, packet, flow, &to, ends);
	}
	if (unlikely(is_too_big(skb, packet, own)))
		return FOLLOWED_TOO_BIG;
	if (unlikely(flow->flags & FLOW_CHANGED)) {
		if (noted & NOTED_TIME)
			keep_looped(packet, flow);
		mesh_addr(&to.daddr, own->overlay, packet->version);
		if (!rewrite(skb, packet, &to))
			return drop(DROP_REWRITE);
	}
	parcel.task = backend->addr;
	parcel.target = flow->far_port;
	if (flow->out == OUT_UPLINK && flow->ifindex == own->uplink && own->flags & NODE_REPLY_DIRECT)
		parcel.flags = PARCEL_DIRECT;
	if (unlikely(backend->flags & BACKEND_PREFIX))
		parcel.flags |= PARCEL_PREFIX;
	return to_node(skb, &backend->node, is_tunneled(flow) ? VNI_SECOND : VNI_FORWARD, &parcel);
}

/* A client's packet that another node sent here, and its task is here. `key` is the entry's. */
static __always_inline int follow_served(struct __sk_buff *skb, const struct packet *packet, const struct flow_key *key,
					 struct flow *flow, bool ends)
{
	struct backend *backend = backend_at(flow->slot);
	struct tuple to;

	if (!backend)
		return VERDICT_DROP;
	note(skb, packet, flow, false);
	count_packet(skb, flow, true, false);
	to.saddr = key->daddr;
	to.daddr = key->saddr;
	to.sport = key->dport;
	to.dport = key->sport;
	return enter_task(skb, packet, flow, &to, ends);
}

/* Whom a task's answer is really for. */
static __always_inline void client_of(struct addr *client, const struct flow_key *served, const struct flow *flow)
{
	*client = served->daddr;
	if (likely(!(flow->flags & FLOW_CHANGED)))
		return;
	/* Through the tunnel only a task that asked itself by a detour comes changed. */
	*client = is_tunneled(flow) ? served->saddr : flow->node;
}

/* A task's answer. */
__verified_once int follow_answer(struct __sk_buff *skb, const struct packet *packet, struct flow *flow)
{
	struct flow_key client;
	struct tuple to;
	bool tunneled;
	int noted;

	if (!packet || !flow)
		return VERDICT_DROP;
	tunneled = is_tunneled(flow);
	noted = note(skb, packet, flow, true);
	count_packet(skb, flow, tunneled, true);
	to.saddr = flow->far;
	client_of(&to.daddr, &packet->key, flow);
	to.sport = flow->far_port;
	to.dport = flow->port;
	if (unlikely(noted && !tunneled)) {
		client.saddr = to.daddr;
		client.daddr = to.saddr;
		client.sport = to.dport;
		client.dport = to.sport;
		client.proto = packet->key.proto;
		client.kind = KIND_ASKED;
		client.pad = 0;
		tell_asked(packet, flow, &client);
	}
	if (unlikely(packet->signals & TCP_SYN))
		clamp(skb, packet);
	if (!rewrite(skb, packet, &to))
		return drop(DROP_REWRITE);
	return to_client(skb, flow, &to.daddr, packet->key.saddr.w[3]);
}

/* An answer that another node sent here, of the flow that `client` is the key of; `looped` if the client is on the loopback device. */
static __always_inline int follow_reply(struct __sk_buff *skb, const struct packet *packet, const struct flow_key *client,
					struct flow *flow, const struct backend *backend, bool looped, __be32 from)
{
	int noted = note(skb, packet, flow, true);
	struct tuple to;

	if (unlikely(noted & (NOTED_ANSWER | NOTED_TIME)))
		trust(backend, flow->slot, flow->seen);
	count_packet(skb, flow, is_tunneled(flow), true);
	if (unlikely(looped)) {
		to.saddr = client->daddr;
		to.daddr = client->saddr;
		to.sport = client->dport;
		to.dport = client->sport;
		if (!rewrite(skb, packet, &to))
			return drop(DROP_REWRITE);
	}
	return to_client(skb, flow, &client->saddr, from);
}
