/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The data plane of the routing mesh: four programs, one per kind of place where packets come from. Each asks the same three
 * questions: do I know this flow, may it be opened, and if neither, is it any business of ours?
 *
 * Packets that are not ours go on to whatever comes next, unchanged.
 */
#include "fragments.h"
#include "icmp.h"

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
			flow = bpf_map_lookup_elem(&flows, &packet->key);
		if (!flow)
			return VERDICT_DROP;
		decided = follow_asked(skb, packet, flow, ends);
		return unlikely(decided == FOLLOWED_TOO_BIG) ? refuse_size(skb, packet, visit) : decided;
	}
	if (!served)
		return VERDICT_DROP;
	if (unlikely(!flow))
		flow = bpf_map_lookup_elem(&flows, served);
	return flow ? follow_served(skb, packet, served, flow, ends) : VERDICT_DROP;
}

/* Clients, outside or on this node. */
static __always_inline int from_client(struct __sk_buff *skb, bool loopback)
{
	struct packet packet = {};
	struct visit visit = { .path = PATH_CLIENT };
	struct flow *flow;
	enum known known = KNOWN_REOPEN;
	int decided = DECIDED_ASKED;
	enum parsed parsed = parse(skb, &packet);

	if (unlikely(parsed == PARSED_ICMP))
		return error_from_client(skb, &packet);
	if (unlikely(packet.fragment)) {
		if (parsed == PARSED_FRAGMENT && recall_fragment(&packet, PATH_CLIENT))
			parsed = PARSED;
	}
	if (parsed != PARSED || !is_published(packet.key.proto, packet.key.dport))
		return VERDICT_NEXT;
	if (unlikely(packet.fragment == FRAGMENT_FIRST))
		remember_fragment(&packet, PATH_CLIENT);
	flow = bpf_map_lookup_elem(&flows, &packet.key);
	if (likely(flow && !is_tunneled(flow)))
		known = judge(&packet, flow, backend_at(flow->slot));
	/* An answer of ours to a client on this node that happens to use a published port as its own. */
	else if (loopback && is_published(packet.key.proto, packet.key.sport) && !opens(&packet))
		return VERDICT_NEXT;
	if (unlikely(known == KNOWN_GONE)) {
		decided = DECIDED_REFUSE + DROP_BACKEND_GONE;
	} else if (unlikely(known == KNOWN_REOPEN)) {
		visit.tries = flow ? flow->tries : 0;
		visit.asked = loopback && is_loopback(&packet.key.daddr) ? ADDRESS_OWN : address_flags(&packet.key.daddr);
		if (!(visit.asked & ADDRESS_OWN))
			return VERDICT_NEXT;
		decided = ask(&packet, &visit);
		flow = NULL;
	}
	return finish(skb, &packet, &visit, NULL, flow, decided);
}

SEC("classifier")
int from_uplink(struct __sk_buff *skb)
{
	return from_client(skb, false);
}

SEC("classifier")
int from_loopback(struct __sk_buff *skb)
{
	return from_client(skb, true);
}

/* RFC 3927, RFC 4291: never leaves the cable. */
static __always_inline bool is_link_local(const struct addr *addr)
{
	if (is_v4(addr))
		return (addr->w[3] & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000);
	return (addr->w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000) || (addr->w[0] & 0xff) == 0xff;
}

/* Whether this is a packet of the task behind the device, by its address. */
static __always_inline bool is_own_packet(struct __sk_buff *skb, const struct packet *packet)
{
	struct backend *sender;
	__u32 slot;

	/* Neighbour discovery speaks link-locally, or from no address at all. */
	if (packet->version == 6 && (is_link_local(&packet->key.saddr) || is_zero(&packet->key.saddr)))
		return is_link_local(&packet->key.daddr);
	sender = local_task(packet->key.saddr.w[3], &slot);
	return sender && sender->ifindex == skb->ifindex && is_mesh_addr(&packet->key.saddr, sender->addr, packet->version);
}

/* What a task sends that belongs to no flow of ours; `ours` if it could. */
__verified_once int from_task_unknown(struct __sk_buff *skb, const struct packet *packet, struct visit *visit, __u32 ours)
{
	int decided;

	if (!packet || !visit)
		return VERDICT_DROP;
	if (!is_own_packet(skb, packet))
		return drop(DROP_SPOOFED);
	if (!ours)
		return VERDICT_NEXT;
	visit->asked = address_flags(&packet->key.daddr);
	if (visit->asked & (ADDRESS_OWN | ADDRESS_MEMBER) && is_published(packet->key.proto, packet->key.dport)) {
		decided = ask(packet, visit);
		if (decided != VERDICT_NEXT)
			return decided;
	}
	/*
	 * The node itself may talk to its tasks directly, also by the link-local address of its end of the cable; for anybody else an
	 * answer with the task's own address is no answer.
	 */
	if (!(visit->asked & ADDRESS_OWN) && !is_link_local(&packet->key.daddr) &&
	    !(has_handshake(packet->key.proto) && opens(packet)) &&
	    is_served(packet->key.sport, packet->key.proto))
		return drop(DROP_UNKNOWN_FLOW);
	return VERDICT_NEXT;
}

/* A task as a client. */
__verified_once int from_task_client(struct __sk_buff *skb, struct packet *packet, __u32 ours)
{
	struct visit visit = { .path = PATH_TASK };
	enum known known = KNOWN_REOPEN;
	int decided = DECIDED_ASKED;
	struct flow *flow = NULL;

	if (!packet)
		return VERDICT_DROP;
	packet->key.kind = KIND_ASKED;
	if (ours && is_published(packet->key.proto, packet->key.dport))
		flow = bpf_map_lookup_elem(&flows, &packet->key);
	if (flow && (flow->out != OUT_TASK || flow->ifindex != skb->ifindex))
		flow = NULL;
	if (flow)
		known = judge(packet, flow, backend_at(flow->slot));
	if (known == KNOWN_GONE) {
		decided = DECIDED_REFUSE + DROP_BACKEND_GONE;
	} else if (known == KNOWN_REOPEN) {
		visit.tries = flow ? flow->tries : 0;
		decided = from_task_unknown(skb, packet, &visit, ours);
		flow = NULL;
	}
	return finish(skb, packet, &visit, NULL, flow, decided);
}

SEC("classifier")
int from_task(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct backend *backend;
	struct flow *flow;
	int decided;
	enum parsed parsed = parse_whole(skb, &packet, PATH_TASK);

	if (!packet.version)
		return VERDICT_NEXT;
	if (parsed == PARSED_BAD)
		return drop(DROP_MALFORMED);
	if (unlikely(parsed == PARSED_ICMP)) {
		decided = error_from_task(skb, &packet);
		if (decided == VERDICT_NEXT)
			decided = error_from_client(skb, &packet);
		if (decided != VERDICT_NEXT)
			return decided;
	}
	if (unlikely(parsed != PARSED))
		return from_task_client(skb, &packet, false);
	packet.key.kind = KIND_SERVED;
	flow = bpf_map_lookup_elem(&flows, &packet.key);
	if (unlikely(!flow))
		return from_task_client(skb, &packet, true);
	backend = backend_at(flow->slot);
	if (!backend || backend->ifindex != skb->ifindex)
		return drop(DROP_SPOOFED);
	return follow_answer(skb, &packet, flow);
}

/* Another node sends a client's packet, or passes it on. */
__verified_once int from_node(struct __sk_buff *skb, struct packet *packet, struct visit *visit, __u32 second)
{
	struct flow_key key;
	struct flow *flow;
	enum known known = KNOWN_REOPEN;
	int decided = DECIDED_SERVED;

	if (!packet || !visit)
		return VERDICT_DROP;
	expected_key(&key, &packet->key.saddr, packet->key.sport, packet->key.proto, visit->parcel.task, visit->parcel.target,
		     packet->version);
	flow = bpf_map_lookup_elem(&flows, &key);
	if (unlikely(!flow || !came_by(flow, &packet->key.daddr, packet->key.dport, &visit->origin))) {
		decided = DECIDED_ASKED;
		flow = bpf_map_lookup_elem(&flows, &packet->key);
		if (flow && !(is_tunneled(flow) && same_addr(&flow->node, &visit->origin)))
			flow = NULL;
	}
	if (likely(flow))
		known = judge(packet, flow, backend_at(flow->slot));
	if (unlikely(known == KNOWN_GONE)) {
		decided = DECIDED_REFUSE + DROP_BACKEND_GONE;
	} else if (unlikely(known == KNOWN_REOPEN)) {
		visit->tries = flow ? flow->tries : 0;
		decided = accept(skb, packet, visit, second, &key);
		flow = NULL;
	}
	return finish(skb, packet, visit, &key, flow, decided);
}

/* Another node sends an answer for a client of this one. */
__verified_once int reply_from_node(struct __sk_buff *skb, struct packet *packet, const struct addr *origin)
{
	struct node *own = own_node();
	struct flow_key client;
	struct backend *backend;
	struct flow *flow;
	bool looped;

	if (!packet || !origin || !own)
		return VERDICT_DROP;
	looped = is_mesh_addr(&packet->key.daddr, own->overlay, packet->version);
	if (unlikely(looped)) {
		packet->key.kind = KIND_LOOPED;
		flow = bpf_map_lookup_elem(&flows, &packet->key);
		if (!flow)
			return drop(DROP_UNKNOWN_FLOW);
		client.saddr = flow->node;
		client.daddr = flow->far;
		client.sport = flow->port;
		client.dport = packet->key.sport;
		client.proto = packet->key.proto;
		client.kind = KIND_ASKED;
		client.pad = 0;
	} else {
		turned(&client, &packet->key, KIND_ASKED);
	}
	flow = bpf_map_lookup_elem(&flows, &client);
	backend = flow ? backend_at(flow->slot) : NULL;
	/* Of a backend that was given up for another one, and of nodes that nobody asked, nothing is taken. */
	if (unlikely(!flow || !backend || !same_addr(&backend->node, origin)))
		return drop(DROP_UNKNOWN_FLOW);
	return follow_reply(skb, packet, &client, flow, backend, looped);
}

/* Which node sent the frame, by its tunnel header. */
__verified_once int read_tunnel(struct __sk_buff *skb, struct addr *origin, __u32 *vni)
{
	struct tunnel_key key = {};

	if (!origin || !vni)
		return false;
	if (bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_OLD, 0) == 0) {
		map_v4(origin, bpf_htonl(key.remote[0]));
	} else {
		if (bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_OLD, F_TUNINFO_IPV6))
			return false;
		__builtin_memcpy(origin, key.remote, sizeof(*origin));
	}
	*vni = key.tunnel_id;
	return true;
}

SEC("classifier")
int from_overlay(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct visit visit = { .path = PATH_FORWARD };
	enum parsed parsed;
	__u32 vni;
	int verdict;

	if (!read_tunnel(skb, &visit.origin, &vni) || !read_parcel(skb, &visit.parcel))
		return drop(DROP_MALFORMED);
	if (vni < VNI_FORWARD || vni > VNI_SECOND)
		return VERDICT_DROP;
	if (vni == VNI_REPLY)
		visit.path = PATH_REPLY;
	parsed = parse_whole(skb, &packet, visit.path);
	if (unlikely(parsed == PARSED_ICMP)) {
		if (vni == VNI_REPLY)
			return error_from_node(skb, &packet, &visit);
		verdict = error_to_task(skb, &packet, &visit);
		if (verdict == VERDICT_NEXT)
			verdict = error_from_client(skb, &packet);
		return verdict == VERDICT_NEXT ? VERDICT_DROP : verdict;
	}
	if (unlikely(parsed != PARSED))
		return drop(parsed == PARSED_FRAGMENT ? DROP_FRAGMENT : DROP_MALFORMED);
	if (vni == VNI_REPLY)
		return reply_from_node(skb, &packet, &visit.origin);
	return from_node(skb, &packet, &visit, vni == VNI_SECOND);
}

char terms[] SEC("license") = "MIT";
