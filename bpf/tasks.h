/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What a task sends that is no answer: to other tasks, to services, to the world outside. */
#pragma once

#include "egress.h"

/* For nobody by name: multicast, IPv4's broadcast, and addresses that each machine has. */
static __always_inline bool is_for_nobody(const struct addr *addr)
{
	if (is_loopback(addr))
		return true;
	return is_v4(addr) ? (addr->w[3] & 0xff) >= 224 || !(addr->w[3] & 0xff) : (addr->w[0] & 0xff) == 0xff;
}

/* Decided: it goes out, if the task may. */
enum { DECIDED_OUT = 0x800 };

/* What a task sends to an address that is a service's own. */
__verified_once int to_vip(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit, __u32 parsed)
{
	struct frontend *vip;
	struct backend *sender;
	__u32 slot;

	if (!packet || !visit)
		return VERDICT_DROP;
	vip = vip_of(&packet->key.daddr, packet->version);
	if (!vip)
		return VERDICT_NEXT;
	sender = sender_of(skb, packet, &slot);
	if (!sender || sender->network != vip->network)
		return DECIDED_REFUSE + DROP_OTHER_NETWORK;
	if (parsed == PARSED_ICMP)
		return answer_echo(skb, packet, sender);
	return parsed == PARSED ? ask(skb, packet, visit) : VERDICT_DROP;
}

/* What a task sends to ports of nodes. NEXT when it is none that the mesh has. */
static __always_inline int to_port(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit)
{
	bool begins = has_handshake(packet->key.proto) && opens(packet);

	if (visit->asked & (ADDRESS_OWN | ADDRESS_MEMBER) && is_published(packet->key.proto, packet->key.dport)) {
		int decided = ask(skb, packet, visit);

		if (decided != VERDICT_NEXT)
			return decided;
	}
	if (begins || !is_served(packet->key.sport, packet->key.proto))
		return VERDICT_NEXT;
	/* The node itself may talk to its tasks directly; for anybody else an answer with the task's own address is no answer. */
	return visit->asked & ADDRESS_OWN ? VERDICT_OK : drop(DROP_UNKNOWN_FLOW);
}

/* What a task sends that belongs to no flow, and is for no other task. */
__verified_once int from_task_unknown(struct __sk_buff *skb, const struct packet *packet, struct visit *visit, __u32 parsed)
{
	int decided;

	if (!packet || !visit)
		return VERDICT_DROP;
	if (!is_own_packet(skb, packet))
		return drop(DROP_SPOOFED);
	/* The node's end of the cable. */
	if (is_link_local(&packet->key.daddr) || is_for_nobody(&packet->key.daddr))
		return VERDICT_NEXT;
	decided = to_vip(skb, packet, visit, parsed);
	if (decided != VERDICT_NEXT)
		return decided;
	visit->asked = address_flags(&packet->key.daddr);
	if (parsed == PARSED) {
		decided = to_port(skb, packet, visit);
		if (decided != VERDICT_NEXT)
			return decided == VERDICT_OK ? VERDICT_NEXT : decided;
		if (visit->asked & ADDRESS_OWN && !opens(packet))
			return VERDICT_NEXT;
	}
	return is_on_overlay(&packet->key.daddr) ? DECIDED_REFUSE + DROP_OTHER_NETWORK : DECIDED_OUT;
}

/* What has ports, or something like one, goes out; nothing else does. */
static __always_inline int leave(struct __sk_buff *skb, const struct packet *packet, struct visit *visit, bool has_ports)
{
	int decided;

	if (!has_ports)
		return DECIDED_REFUSE + DROP_NO_WAY_OUT;
	decided = open_egress(skb, packet, visit);
	return decided ? decided : follow_egress(skb, packet, visit);
}

/* A task as a client, or as one of many that talk to each other. */
__verified_once int from_task_client(struct __sk_buff *skb, struct packet *packet, __u32 parsed)
{
	struct visit visit = { .path = PATH_TASK };
	enum known known = KNOWN_REOPEN;
	bool published, has_ports = parsed == PARSED;
	int decided = DECIDED_ASKED;
	struct flow *flow = NULL;
	struct icmphdr icmp;

	if (!packet)
		return VERDICT_DROP;
	packet->key.kind = KIND_ASKED;
	published = has_ports && is_published(packet->key.proto, packet->key.dport);
	if (published)
		flow = flow_of(&packet->key);
	if (!flow) {
		decided = to_other_task(skb, packet);
		if (unlikely(decided == FOLLOWED_TOO_BIG))
			decided = DECIDED_SIZE;
		if (decided != VERDICT_NEXT)
			return tell_task(skb, packet, &visit, decided);
		decided = DECIDED_ASKED;
		if (parsed == PARSED_ICMP && read_echo(skb, packet, true, &icmp)) {
			packet->key.sport = echo_id(&icmp);
			has_ports = true;
		}
	}
	/* Those of services' own addresses. */
	if (parsed == PARSED && !published)
		flow = flow_of(&packet->key);
	if (flow && (flow->out != OUT_TASK || flow->ifindex != skb->ifindex))
		flow = NULL;
	if (!flow && has_ports) {
		decided = follow_egress(skb, packet, &visit);
		if (decided != VERDICT_NEXT)
			return tell_task(skb, packet, &visit, decided);
		decided = DECIDED_ASKED;
	}
	if (flow)
		known = judge(packet, flow, backend_at(flow->slot), true);
	if (known == KNOWN_GONE) {
		decided = DECIDED_REFUSE + DROP_BACKEND_GONE;
	} else if (known == KNOWN_REOPEN) {
		try_again(&visit, flow);
		decided = from_task_unknown(skb, packet, &visit, parsed);
		flow = NULL;
		if (decided == DECIDED_OUT) {
			decided = leave(skb, packet, &visit, has_ports);
			return tell_task(skb, packet, &visit, decided);
		}
	}
	return finish(skb, packet, &visit, NULL, flow, decided);
}
