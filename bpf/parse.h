/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* From bytes to a tuple. Nothing is read that the packet does not have. */
#pragma once

#include "maps.h"

/* A packet whose headers have been read. */
struct packet {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	__u16 l4;		/* offset of the transport header */
	__u16 total;		/* length of the IP packet as its header says */
	__be16 fragment;	/* raw field of the IP header */
	__be16 id;
	__u8 proto;
	__u8 tcp_flags;		/* 0 for everything but TCP */
};

enum parsed {
	PARSED,
	PARSED_FRAGMENT,	/* not the first fragment: no ports in it */
	PARSED_ICMP,
	PARSED_OTHER,		/* a protocol that is not ours */
	PARSED_BAD,		/* lengths that contradict each other */
};

static __always_inline bool is_later_fragment(const struct packet *packet)
{
	return packet->fragment & bpf_htons(FRAGMENT_OFFSET);
}

static __always_inline bool is_fragment(const struct packet *packet)
{
	return packet->fragment & bpf_htons(FRAGMENT_OFFSET | FRAGMENT_MORE);
}

static __always_inline bool opens(const struct packet *packet)
{
	return packet->proto != PROTO_TCP || (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Makes `need` bytes readable in place. */
static __always_inline bool readable(struct __sk_buff *skb, __u32 need)
{
	if (likely((void *)(long)skb->data + need <= (void *)(long)skb->data_end))
		return true;
	return skb->len >= need && bpf_skb_pull_data(skb, need) == 0;
}

static __always_inline enum parsed parse_transport(struct __sk_buff *skb, struct packet *packet)
{
	__u32 header = packet->proto == PROTO_TCP ? sizeof(struct tcphdr) : sizeof(struct udphdr);
	__u32 l4 = packet->l4;
	struct tcphdr *tcp;

	if (packet->total < l4 - sizeof(struct ethhdr) + header || !readable(skb, l4 + header))
		return PARSED_BAD;
	tcp = (void *)(long)skb->data + l4;
	if ((void *)tcp + sizeof(struct udphdr) > (void *)(long)skb->data_end)
		return PARSED_BAD;
	packet->sport = tcp->sport;
	packet->dport = tcp->dport;
	if (packet->proto != PROTO_TCP)
		return PARSED;
	if ((void *)(tcp + 1) > (void *)(long)skb->data_end)
		return PARSED_BAD;
	packet->tcp_flags = tcp->flags;
	return PARSED;
}

static __always_inline enum parsed parse(struct __sk_buff *skb, struct packet *packet)
{
	const __u32 minimum = sizeof(struct ethhdr) + sizeof(struct iphdr);
	struct iphdr *ip;
	__u32 header;

	if (skb->protocol != bpf_htons(ETHERTYPE_IPV4) || skb->vlan_present)
		return PARSED_OTHER;
	if (!readable(skb, minimum))
		return PARSED_BAD;
	ip = (void *)(long)skb->data + sizeof(struct ethhdr);
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return PARSED_BAD;
	header = (ip->version_ihl & 0x0f) * 4;
	packet->saddr = ip->saddr;
	packet->daddr = ip->daddr;
	packet->proto = ip->proto;
	packet->tcp_flags = 0;
	packet->sport = 0;
	packet->dport = 0;
	packet->id = ip->id;
	packet->fragment = ip->fragment;
	packet->total = bpf_ntohs(ip->total);
	packet->l4 = sizeof(struct ethhdr) + header;
	if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip) || packet->total < header ||
	    packet->total + sizeof(struct ethhdr) > skb->len)
		return PARSED_BAD;
	if (packet->proto == PROTO_ICMP)
		return is_fragment(packet) ? PARSED_OTHER : PARSED_ICMP;
	if (packet->proto != PROTO_TCP && packet->proto != PROTO_UDP)
		return PARSED_OTHER;
	if (is_later_fragment(packet))
		return PARSED_FRAGMENT;
	return parse_transport(skb, packet);
}
