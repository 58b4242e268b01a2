/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The data plane of the routing mesh: four programs, one per kind of place where packets come from. Each asks the same three
 * questions: do I know this flow, may it be opened, and if neither, is it any business of ours?
 *
 * Packets that are not ours go on to whatever comes next, unchanged.
 */
#include "fragments.h"
#include "icmp.h"
#include "refuse.h"

/* What to do with a packet towards a backend whose flow is known. */
enum known { KNOWN_GOOD, KNOWN_REOPEN, KNOWN_GONE };

/*
 * Decisions that are carried out at the end of a program, in one place for all, besides the verdicts: the verifier walks every way
 * through every call anew, and with several such places a program takes it seconds.
 */
enum { DECIDED_SEND = 0x100, DECIDED_REFUSE = 0x200 /* and the reason */ };

/* A SYN that comes again: the backend may not take new flows any more, or never have answered. */
__verified_once int judge_syn(const struct flow_key *key, struct flow *flow, __u32 state)
{
	struct flow_key other = {};
	struct flow *reverse;

	if (!key || !flow)
		return KNOWN_GONE;
	if (state != BACKEND_READY)
		return KNOWN_REOPEN;
	other_key(flow, PROTO_TCP, &other);
	reverse = bpf_map_lookup_elem(&flows, &other);
	if (!reverse || reverse->saddr != key->daddr || reverse->daddr != key->saddr || reverse->sport != key->dport ||
	    reverse->dport != key->sport)
		return KNOWN_REOPEN;
	if (reverse->flags & FLOW_ANSWERED) {
		flow->tries = 0;
		return KNOWN_GOOD;
	}
	flow->tries += 1;
	if (flow->tries < 2 || flow->out != OUT_TUNNEL)
		return KNOWN_GOOD;
	/* What the silent backend may still say would only confuse the client. */
	bpf_map_delete_elem(&flows, &other);
	return KNOWN_REOPEN;
}

static __always_inline enum known judge(const struct flow_key *key, const struct packet *packet, struct flow *flow)
{
	struct backend *backend = backend_at(flow->slot);
	__u32 state = BACKEND_GONE;

	if (likely(backend && backend->generation == flow->generation))
		state = backend->state;
	if (packet->proto != PROTO_TCP)
		return likely(state == BACKEND_READY) ? KNOWN_GOOD : KNOWN_REOPEN;
	if (unlikely(opens(packet)))
		return judge_syn(key, flow, state);
	return likely(state != BACKEND_GONE) ? KNOWN_GOOD : KNOWN_GONE;
}

/* Carries out what was decided. `flow` may be NULL for a flow that has just been opened. */
static __always_inline int finish(struct __sk_buff *skb, const struct flow_key *key, const struct packet *packet, struct flow *flow,
				  int decided)
{
	if (unlikely(decided >= DECIDED_REFUSE))
		return refuse(skb, key, packet, decided - DECIDED_REFUSE);
	if (unlikely(decided != DECIDED_SEND))
		return decided;
	if (unlikely(!flow)) {
		flow = bpf_map_lookup_elem(&flows, key);
		if (!flow)
			return VERDICT_DROP;
	}
	if (unlikely(is_fragment(packet)) && !is_later_fragment(packet))
		remember_fragment(packet, key->path, key->origin);
	return follow(skb, key, packet, flow);
}

static __always_inline int open(struct __sk_buff *skb, const struct flow_key *key, __u32 slot, __be16 published, __u32 flags)
{
	return open_flow(skb, key, slot, published | flags << 16) ? DECIDED_SEND : VERDICT_DROP;
}

static __always_inline void tuple_key(const struct packet *packet, __u8 path, __be32 origin, struct flow_key *key)
{
	key->saddr = packet->saddr;
	key->daddr = packet->daddr;
	key->sport = packet->sport;
	key->dport = packet->dport;
	key->proto = packet->proto;
	key->path = path;
	key->origin = origin;
	key->pad = 0;
}

/* A client asks a frontend: `asked` says whose address it used. `tries` went unanswered before. */
__verified_once int ask(struct __sk_buff *skb, struct flow_key *key, __u32 tcp_flags, __u32 asked, __u32 tries)
{
	int slot;

	if (!key)
		return VERDICT_NEXT;
	slot = pick(key, key->dport, tries, asked);
	if (slot == PICK_NOT_OURS)
		return VERDICT_NEXT;
	/* A reset of something unknown needs neither a flow nor an answer. */
	if (tcp_flags & TCP_RST)
		return VERDICT_DROP;
	if (slot < 0)
		return DECIDED_REFUSE + DROP_NO_BACKEND;
	return open(skb, key, slot, key->dport, 0);
}

/* The headers of a packet, with the ports of fragments. PARSED says that it is TCP or UDP that can be looked up. */
static __always_inline enum parsed parse_whole(struct __sk_buff *skb, struct packet *packet, __u8 path, __be32 origin)
{
	enum parsed parsed = parse(skb, packet);

	if (unlikely(parsed == PARSED_FRAGMENT) && recall_fragment(packet, path, origin))
		return PARSED;
	return parsed;
}

static __always_inline bool is_loopback(__be32 addr)
{
	return (addr & 0xff) == 127;
}

/* RFC 3927: never leaves the cable. */
static __always_inline bool is_link_local(__be32 addr)
{
	return (addr & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000);
}

/* Clients, outside or on this node. */
static __always_inline int from_client(struct __sk_buff *skb, bool loopback)
{
	struct packet packet = {};
	struct flow_key key = {};
	struct flow *flow;
	enum known known = KNOWN_REOPEN;
	int decided = DECIDED_SEND;
	enum parsed parsed = parse_whole(skb, &packet, PATH_CLIENT, 0);

	if (unlikely(parsed == PARSED_ICMP))
		return follow_error(skb, &packet, PATH_CLIENT, 0, VERDICT_NEXT);
	if (parsed != PARSED || !is_published(packet.proto, packet.dport))
		return VERDICT_NEXT;
	tuple_key(&packet, PATH_CLIENT, 0, &key);
	flow = bpf_map_lookup_elem(&flows, &key);
	if (likely(flow))
		known = judge(&key, &packet, flow);
	/* An answer of ours to a client on this node that happens to use a published port as its own. */
	else if (loopback && is_published(packet.proto, packet.sport) && !opens(&packet))
		return VERDICT_NEXT;
	if (unlikely(known == KNOWN_GONE)) {
		decided = DECIDED_REFUSE + DROP_BACKEND_GONE;
	} else if (unlikely(known == KNOWN_REOPEN)) {
		__u32 tries = flow ? flow->tries : 0;
		__u32 asked = loopback && is_loopback(packet.daddr) ? ADDRESS_OWN : address_flags(packet.daddr);

		if (!(asked & ADDRESS_OWN))
			return VERDICT_NEXT;
		decided = ask(skb, &key, packet.tcp_flags, asked, tries);
		flow = NULL;
	}
	return finish(skb, &key, &packet, flow, decided);
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

/* What a task sends that belongs to no flow of ours. */
__verified_once int from_task_unknown(struct __sk_buff *skb, const struct packet *packet, struct flow_key *key)
{
	__u32 slot, asked;
	struct backend *sender;

	if (!packet || !key)
		return VERDICT_DROP;
	sender = local_task(packet->saddr, &slot);
	if (!sender || sender->ifindex != skb->ifindex)
		return drop(DROP_SPOOFED);
	if (packet->proto != PROTO_TCP && packet->proto != PROTO_UDP)
		return VERDICT_NEXT;
	asked = address_flags(packet->daddr);
	if (asked & (ADDRESS_OWN | ADDRESS_MEMBER) && is_published(packet->proto, packet->dport)) {
		int decided = ask(skb, key, packet->tcp_flags, asked, 0);

		if (decided != VERDICT_NEXT)
			return decided;
	}
	/*
	 * The node itself may talk to its tasks directly, also by the link-local address of its end of the cable; for anybody else an
	 * answer with the task's own address is no answer.
	 */
	if (!(asked & ADDRESS_OWN) && !is_link_local(packet->daddr) && !(packet->proto == PROTO_TCP && opens(packet)) &&
	    is_served(packet->saddr, packet->sport, packet->proto))
		return drop(DROP_UNKNOWN_FLOW);
	return VERDICT_NEXT;
}

SEC("classifier")
int from_task(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct flow_key key = {};
	struct flow *flow = NULL;
	int decided = DECIDED_SEND;
	enum parsed parsed = parse_whole(skb, &packet, PATH_TASK, skb->ifindex);

	if (skb->protocol != bpf_htons(ETHERTYPE_IPV4))
		return VERDICT_NEXT;
	if (parsed == PARSED_BAD)
		return drop(DROP_MALFORMED);
	if (unlikely(parsed == PARSED_ICMP)) {
		decided = follow_error(skb, &packet, PATH_TASK, skb->ifindex, VERDICT_NEXT);
		if (decided != VERDICT_NEXT)
			return decided;
	}
	if (unlikely(parsed != PARSED))
		packet.proto = 0;
	tuple_key(&packet, PATH_TASK, skb->ifindex, &key);
	flow = bpf_map_lookup_elem(&flows, &key);
	if (unlikely(!flow)) {
		decided = from_task_unknown(skb, &packet, &key);
	} else if (unlikely(!(flow->flags & FLOW_REVERSE))) {
		enum known known = judge(&key, &packet, flow);

		if (known == KNOWN_GONE) {
			decided = DECIDED_REFUSE + DROP_BACKEND_GONE;
		} else if (known == KNOWN_REOPEN) {
			decided = ask(skb, &key, packet.tcp_flags, address_flags(packet.daddr), flow->tries);
			flow = NULL;
		}
	}
	return finish(skb, &key, &packet, flow, decided);
}

/* A packet for a task of this node whose flow is not known, or has to be opened again. */
__verified_once int from_overlay_new(struct __sk_buff *skb, struct flow_key *key, const struct packet *packet, __u32 vni)
{
	struct ethhdr *eth = (void *)(long)skb->data;
	struct backend *backend;
	__be16 published;
	__u32 slot = 0;
	bool fresh;

	if (!key || !packet || (void *)(eth + 1) > (void *)(long)skb->data_end)
		return VERDICT_DROP;
	fresh = opens(packet);
	published = eth->src[4] | (__u16)eth->src[5] << 8;
	if (!(address_flags(key->origin) & ADDRESS_TRUSTED))
		return drop(DROP_NOT_A_MEMBER);
	backend = local_task(packet->daddr, &slot);
	if (backend && (backend->state == BACKEND_READY || !fresh))
		return open(skb, key, slot, published, 0);
	/* Second chance: whoever sent it had not heard yet that this task takes no new flows. */
	if (fresh && vni == VNI_FORWARD) {
		int other = pick(key, published, 0, ADDRESS_MEMBER);

		if (other >= 0)
			return open(skb, key, other, published, FLOW_SECOND);
	}
	if (backend && backend->state != BACKEND_GONE)
		return open(skb, key, slot, published, 0);
	return packet->tcp_flags & TCP_RST ? VERDICT_DROP : DECIDED_REFUSE + DROP_UNKNOWN_TASK;
}

SEC("classifier")
int from_overlay(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct flow_key key = {};
	struct tunnel_key tunnel = {};
	struct flow *flow;
	enum parsed parsed;
	enum known known = KNOWN_GOOD;
	int decided = DECIDED_SEND;
	__be32 origin;
	__u8 path;

	if (skb->protocol != bpf_htons(ETHERTYPE_IPV4))
		return VERDICT_DROP;
	if (bpf_skb_get_tunnel_key(skb, &tunnel, TUNNEL_KEY_OLD, 0))
		return drop(DROP_MALFORMED);
	if (tunnel.tunnel_id < VNI_FORWARD || tunnel.tunnel_id > VNI_SECOND)
		return VERDICT_DROP;
	origin = bpf_htonl(tunnel.remote_ipv4);
	path = tunnel.tunnel_id == VNI_REPLY ? PATH_REPLY : PATH_FORWARD;
	parsed = parse_whole(skb, &packet, path, origin);
	if (unlikely(parsed == PARSED_ICMP))
		return follow_error(skb, &packet, path, origin, VERDICT_DROP);
	if (unlikely(parsed != PARSED))
		return drop(parsed == PARSED_FRAGMENT ? DROP_FRAGMENT : DROP_MALFORMED);
	tuple_key(&packet, path, origin, &key);
	flow = bpf_map_lookup_elem(&flows, &key);
	if (path == PATH_REPLY) {
		if (unlikely(!flow))
			return drop(DROP_UNKNOWN_FLOW);
	} else {
		known = likely(flow) ? judge(&key, &packet, flow) : KNOWN_REOPEN;
	}
	if (unlikely(known == KNOWN_GONE)) {
		decided = DECIDED_REFUSE + DROP_BACKEND_GONE;
	} else if (unlikely(known == KNOWN_REOPEN)) {
		decided = from_overlay_new(skb, &key, &packet, tunnel.tunnel_id);
		flow = NULL;
	}
	return finish(skb, &key, &packet, flow, decided);
}

char terms[] SEC("license") = "MIT";
