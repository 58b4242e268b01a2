/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The data plane of the routing mesh: five programs, one per kind of place where packets come from. Each asks the same three
 * questions: do I know this flow, may it be opened, and if neither, is it any business of ours?
 *
 * Packets that are not ours go on to whatever comes next, unchanged.
 */
#include "fragments.h"
#include "probe.h"
#include "tasks.h"
#include "unwrap.h"

/*
 * A client's fragment: with the ports of the first one, which it waits for if need be (but on devices without frames). Only those for this
 * node itself are touched.
 */
__verified_once int client_fragment(struct __sk_buff *skb, struct packet *packet, __u32 parsed, __u32 framed)
{
	int waiting;

	if (!packet || !(address_flags(&packet->key.daddr) & ADDRESS_OWN || is_loopback(&packet->key.daddr)))
		return PARSED_OTHER;
	if (parsed == PARSED_FRAGMENT) {
		if (recall_fragment(packet, PATH_CLIENT))
			return PARSED;
		return framed && hold_fragment(skb, packet, PATH_CLIENT) ? PARSED_HELD : PARSED_OTHER;
	}
	if (parsed != PARSED || packet->fragment != FRAGMENT_FIRST)
		return parsed;
	waiting = remember_fragment(packet, PATH_CLIENT);
	if (waiting)
		release_fragments(skb, packet, PATH_CLIENT, waiting);
	return PARSED;
}

/* Not a verdict: the packet may be the tunnel's. */
enum { CLIENT_TUNNELED = 0x40 };

/* Clients, outside or on this node. */
static __always_inline int from_client(struct __sk_buff *skb, struct packet *packet, struct visit *visit, bool loopback, __u32 l2)
{
	struct flow *flow;
	enum known known = KNOWN_REOPEN;
	int decided = DECIDED_ASKED;
	enum parsed parsed = parse(skb, packet, l2);

	if (unlikely(parsed == PARSED_ICMP))
		return icmp_from_client(skb, packet, l2);
	if (unlikely(packet->fragment))
		parsed = client_fragment(skb, packet, parsed, l2);
	if (unlikely(parsed == PARSED_HELD))
		return VERDICT_DROP;
	if (parsed != PARSED)
		return VERDICT_NEXT;
	if (!is_published(packet->key.proto, packet->key.dport)) {
		if (unlikely(may_be_answer(packet->key.dport)))
			return from_outside(skb, packet, l2);
		return packet->key.proto == PROTO_UDP && packet->version == 4 ? CLIENT_TUNNELED : VERDICT_NEXT;
	}
	flow = flow_of(&packet->key);
	if (likely(flow && !is_tunneled(flow)))
		known = judge(packet, flow, backend_at(flow->slot), true);
	/* An answer of ours to a client on this node that happens to use a published port as its own. */
	else if (loopback && is_published(packet->key.proto, packet->key.sport) && !opens(packet))
		return VERDICT_NEXT;
	if (unlikely(known == KNOWN_GONE)) {
		decided = DECIDED_REFUSE + DROP_BACKEND_GONE;
	} else if (unlikely(known == KNOWN_REOPEN)) {
		try_again(visit, flow);
		visit->asked = loopback && is_loopback(&packet->key.daddr) ? ADDRESS_OWN : address_flags(&packet->key.daddr);
		if (!(visit->asked & ADDRESS_OWN))
			return VERDICT_NEXT;
		if (unlikely(is_probe(packet)) && !loopback && l2)
			return return_probe(skb, packet);
		decided = ask(skb, packet, visit);
		flow = NULL;
	}
	if (decided == VERDICT_NEXT || (!l2 && !frame_packet(skb, packet)))
		return decided == VERDICT_NEXT ? VERDICT_NEXT : VERDICT_DROP;
	return finish(skb, packet, visit, NULL, flow, decided);
}

/* Those outside. */
__verified_once int from_client_outside(struct __sk_buff *skb, struct packet *packet, struct visit *visit)
{
	return packet && visit ? from_client(skb, packet, visit, false, sizeof(struct ethhdr)) : VERDICT_NEXT;
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
		return from_task_client(skb, &packet, parsed);
	packet.key.kind = KIND_SERVED;
	flow = bpf_map_lookup_elem(&flows, &packet.key);
	if (unlikely(!flow))
		return from_task_client(skb, &packet, parsed);
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
	asked_task_addr(&key.saddr, visit->parcel.task, visit->parcel.flags & PARCEL_PREFIX, &packet->key.daddr, packet->version);
	expected_key(&key, &packet->key.saddr, packet->key.sport, packet->key.proto, visit->parcel.target, packet->version);
	flow = bpf_map_lookup_elem(&flows, &key);
	if (unlikely(!flow || !came_by(flow, &packet->key.daddr, packet->key.dport))) {
		decided = DECIDED_ASKED;
		flow = flow_of(&packet->key);
	}
	if (unlikely(flow && decided == DECIDED_ASKED && !is_tunneled(flow))) {
		if (second) {
			known = KNOWN_GOOD;
			decided = take_back(packet, visit, flow);
		}
		flow = NULL;
	}
	if (unlikely(flow && !same_addr(&flow->node, &visit->origin))) {
		/* The node that was asked now knows what another had passed on; or the other way round. */
		if (!(address_flags(&visit->origin) & ADDRESS_TRUSTED))
			return drop(DROP_NOT_A_MEMBER);
		flow->node = visit->origin;
	}
	if (likely(flow))
		known = judge(packet, flow, backend_at(flow->slot), decided == DECIDED_ASKED);
	if (unlikely(known == KNOWN_GONE)) {
		decided = DECIDED_REFUSE + DROP_BACKEND_GONE;
	} else if (unlikely(known == KNOWN_REOPEN)) {
		try_again(visit, flow);
		decided = accept(skb, packet, visit, second, &key);
		flow = NULL;
	}
	return finish(skb, packet, visit, &key, flow, decided);
}

/*
 * Whether an answer is of the flow's backend: it comes from that one's node, or from the backend itself by a detour. When that node has passed
 * the flow on to another backend, the flow is that one's from now on, so that it lives as long as what it talks to.
 */
__verified_once int is_from_backend(struct flow *flow, const struct visit *visit, __u32 handshake)
{
	struct backend *backend, *other;
	__be32 from;
	__u32 slot;

	if (!flow || !visit)
		return false;
	from = visit->parcel.task;
	backend = backend_at(flow->slot);
	if (!backend)
		return false;
	if (!same_addr(&backend->node, &visit->origin))
		return backend->addr == from && address_flags(&visit->origin) & ADDRESS_TRUSTED;
	if (likely(!from || from == backend->addr || (handshake && flow->flags & FLOW_ANSWERED)))
		return true;
	other = task_at(from, &slot);
	if (other && other->state != BACKEND_GONE && !is_zero(&other->node)) {
		flow->slot = slot;
		flow->generation = other->generation;
	}
	return true;
}

/* Another node sends an answer for a client of this one. */
__verified_once int reply_from_node(struct __sk_buff *skb, struct packet *packet, const struct visit *visit)
{
	struct node *own = own_node();
	struct flow_key client;
	struct backend *backend;
	struct flow *flow;
	bool looped;

	if (!packet || !visit || !own)
		return VERDICT_DROP;
	looped = is_mesh_addr(&packet->key.daddr, own->overlay, packet->version);
	if (unlikely(looped)) {
		packet->key.kind = KIND_LOOPED;
		flow = flow_of(&packet->key);
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
	/* Of a backend that was given up for another one, and of nodes that nobody asked, nothing is taken. */
	if (unlikely(!flow || !is_from_backend(flow, visit, has_handshake(packet->key.proto))))
		return is_probe(packet) ? note_proof(packet, &visit->origin) : drop(DROP_UNKNOWN_FLOW);
	backend = backend_at(flow->slot);
	return backend ? follow_reply(skb, packet, &client, flow, backend, looped, visit->parcel.task) : VERDICT_DROP;
}

/* Which node sent the frame, by its tunnel header. Returns the network identifier, 0 when there is no header. */
__verified_once int read_tunnel(struct __sk_buff *skb, struct addr *origin)
{
	struct tunnel_key key = {};

	if (!origin)
		return 0;
	if (bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_OLD, 0) == 0) {
		map_v4(origin, bpf_htonl(key.remote[0]));
	} else {
		if (bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_OLD, F_TUNINFO_IPV6))
			return 0;
		__builtin_memcpy(origin, key.remote, sizeof(*origin));
	}
	return key.tunnel_id;
}

/* What another node sends, out of the tunnel's headers; `packet` must be zeroed. */
static __always_inline int from_other_node(struct __sk_buff *skb, struct packet *packet, struct visit *visit, __u32 vni)
{
	enum parsed parsed;
	int verdict;

	visit->path = PATH_FORWARD;
	if (vni == VNI_REPLY)
		visit->path = PATH_REPLY;
	if (vni == VNI_DIRECT)
		visit->path = PATH_DIRECT;
	parsed = parse_whole(skb, packet, visit->path);
	if (vni == VNI_DIRECT)
		return from_other_task(skb, packet, visit, parsed);
	if (unlikely(parsed == PARSED_ICMP)) {
		if (vni == VNI_REPLY)
			return error_from_node(skb, packet, visit);
		verdict = error_to_task(skb, packet, visit);
		if (verdict == VERDICT_NEXT)
			verdict = error_from_client(skb, packet);
		return verdict == VERDICT_NEXT ? VERDICT_DROP : verdict;
	}
	if (unlikely(parsed != PARSED))
		return drop(parsed == PARSED_FRAGMENT ? DROP_FRAGMENT : DROP_MALFORMED);
	if (vni == VNI_REPLY)
		return reply_from_node(skb, packet, visit);
	return from_node(skb, packet, visit, vni == VNI_SECOND);
}

SEC("classifier")
int from_uplink(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct visit visit = { .path = PATH_CLIENT };
	int verdict = from_client_outside(skb, &packet, &visit);
	__u32 vni;

	if (verdict != CLIENT_TUNNELED)
		return verdict;
	vni = unwrap(skb, &packet, &visit);
	if (!vni)
		return VERDICT_NEXT;
	__builtin_memset(&packet, 0, sizeof(packet));
	return from_other_node(skb, &packet, &visit, vni);
}

/* As uplinks, but of devices that carry packets without frames: WireGuard, tun, PPP. */
SEC("classifier")
int from_tunnel(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct visit visit = { .path = PATH_CLIENT };
	int verdict = from_client(skb, &packet, &visit, false, 0);

	return verdict == CLIENT_TUNNELED ? VERDICT_NEXT : verdict;
}

SEC("classifier")
int from_loopback(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct visit visit = { .path = PATH_CLIENT };
	int verdict = from_client(skb, &packet, &visit, true, sizeof(struct ethhdr));

	return verdict == CLIENT_TUNNELED ? VERDICT_NEXT : verdict;
}

SEC("classifier")
int from_overlay(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct visit visit = {};
	__u32 vni = read_tunnel(skb, &visit.origin);

	if (!vni || !read_parcel(skb, &visit.parcel))
		return drop(DROP_MALFORMED);
	if (vni < VNI_FORWARD || vni > VNI_DIRECT)
		return VERDICT_DROP;
	return from_other_node(skb, &packet, &visit, vni);
}

char terms[] SEC("license") = "MIT";
