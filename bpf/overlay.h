/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The swarm's own networks: tasks that talk to tasks. A network is a set of addresses, each of which belongs to one network only; so two
 * lookups say whether a packet may go where it wants. It goes there as it is, whatever its protocol, and nothing remembers it.
 */
#pragma once

#include "icmp.h"

/* RFC 3927, RFC 4291: never leaves the cable. */
static __always_inline bool is_link_local(const struct addr *addr)
{
	if (is_v4(addr))
		return (addr->w[3] & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000);
	return (addr->w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000) || (addr->w[0] & 0xff) == 0xff;
}

/* The task behind the device, if the packet is by an address of its own. */
static __always_inline struct backend *sender_of(struct __sk_buff *skb, const struct packet *packet, __u32 *slot)
{
	struct backend *sender = local_task(packet->key.saddr.w[3], slot);

	if (!sender || sender->ifindex != skb->ifindex || !is_task_addr(&packet->key.saddr, sender, packet->version))
		return NULL;
	return sender;
}

/* Whether this is a packet of the task behind the device, by its address. */
static __always_inline bool is_own_packet(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 slot;

	/* Neighbour discovery speaks link-locally, or from no address at all. */
	if (packet->version == 6 && (is_link_local(&packet->key.saddr) || is_zero(&packet->key.saddr)))
		return is_link_local(&packet->key.daddr);
	return sender_of(skb, packet, &slot) != NULL;
}

/* The task, here or elsewhere, that a packet is for by its address. */
static __always_inline struct backend *receiver_of(const struct packet *packet)
{
	__u32 slot;
	struct backend *receiver = task_at(packet->key.daddr.w[3], &slot);

	if (!receiver || receiver->state == BACKEND_GONE || !is_task_addr(&packet->key.daddr, receiver, packet->version))
		return NULL;
	return receiver;
}

/* A task sends to a task. NEXT when it does not. */
__verified_once int to_other_task(struct __sk_buff *skb, const struct packet *packet)
{
	const struct parcel nothing = {};
	struct backend *sender, *receiver;
	struct node *own = own_node();
	__u32 slot;

	if (!packet || !own)
		return VERDICT_DROP;
	receiver = receiver_of(packet);
	if (!receiver)
		return VERDICT_NEXT;
	sender = sender_of(skb, packet, &slot);
	if (!sender)
		return drop(DROP_SPOOFED);
	if (unlikely(!receiver->network || receiver->network != sender->network))
		return DECIDED_REFUSE + DROP_OTHER_NETWORK;
	if (unlikely(is_deaf(receiver, packet)))
		return DECIDED_REFUSE + DROP_NO_IPV6;
	if (is_zero(&receiver->node))
		return to_task(skb, receiver);
	if (unlikely(is_too_big(skb, packet, own)))
		return FOLLOWED_TOO_BIG;
	return to_node(skb, &receiver->node, VNI_DIRECT, &nothing);
}

/* A task of another node sends to one of this. */
__verified_once int from_other_task(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit, __u32 parsed)
{
	struct backend *sender, *receiver;
	__u32 slot;

	if (!packet || !visit)
		return VERDICT_DROP;
	if (parsed == PARSED_BAD || !packet->version)
		return drop(DROP_MALFORMED);
	sender = task_at(packet->key.saddr.w[3], &slot);
	if (unlikely(!sender || sender->state == BACKEND_GONE || !is_task_addr(&packet->key.saddr, sender, packet->version)))
		return drop(address_flags(&visit->origin) & ADDRESS_TRUSTED ? DROP_UNKNOWN_TASK : DROP_NOT_A_MEMBER);
	if (unlikely(!same_addr(&sender->node, &visit->origin)))
		return drop(DROP_SPOOFED);
	receiver = receiver_of(packet);
	if (unlikely(!receiver || !is_zero(&receiver->node)))
		return refuse(skb, packet, visit, DROP_UNKNOWN_TASK);
	if (unlikely(!receiver->network || receiver->network != sender->network))
		return drop(DROP_OTHER_NETWORK);
	/* The nodes' devices need not carry alike. */
	if (unlikely(packet->signals & TCP_SYN))
		clamp(skb, packet);
	return to_task(skb, receiver);
}

/* A task pings a service's own address: nobody but its node knows that there is none behind it. */
static __always_inline int answer_echo(struct __sk_buff *skb, const struct packet *packet, const struct backend *sender)
{
	struct icmphdr icmp;
	struct tuple to;
	__u8 reply;

	if (!read_echo(skb, packet, true, &icmp))
		return VERDICT_DROP;
	reply = packet->version == 4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY;
	to.saddr = packet->key.daddr;
	to.daddr = packet->key.saddr;
	if (bpf_l4_csum_replace(skb, packet->l4 + __builtin_offsetof(struct icmphdr, check), icmp.type, reply, 2) ||
	    bpf_skb_store_bytes(skb, packet->l4, &reply, sizeof(reply), 0) || !rewrite_network(skb, packet, &to, 0))
		return drop(DROP_REWRITE);
	return to_task(skb, sender);
}
