/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* From bytes to a tuple. Nothing is read that the packet does not have. */
#pragma once

#include "maps.h"

enum { FRAGMENT_NONE = 0, FRAGMENT_FIRST = 1, FRAGMENT_LATER = 2 };

/* A packet whose headers have been read. */
struct packet {
	struct flow_key key;	/* its tuple and protocol; the kind is the program's */
	__u32 id;		/* of a fragment */
	__u16 l4;		/* offset of the transport header */
	__u16 length;		/* of the transport's part, as the headers say */
	__u8 signals;		/* TCP's flags, or what of SCTP corresponds to them; otherwise 0 */
	__u8 fragment;
	__u8 version;		/* 4 or 6 */
	__u8 whole;		/* nobody on the way may cut it up */
};

enum parsed {
	PARSED,
	PARSED_FRAGMENT,	/* not the first fragment: no ports in it */
	PARSED_ICMP,
	PARSED_OTHER,		/* a protocol that is not ours */
	PARSED_BAD,		/* lengths that contradict each other */
	PARSED_HELD,		/* a fragment that now waits for the first */
};

/* Extension headers that a packet may have. */
#define EXTENSIONS 6
/* Transport headers further back are nobody's: what follows must be in reach of a mask. */
#define DEEPEST_L4 126

static __always_inline void map_v4(struct addr *to, __be32 addr)
{
	to->w[0] = 0;
	to->w[1] = 0;
	to->w[2] = bpf_htonl(0xffff);
	to->w[3] = addr;
}

static __always_inline bool is_v4(const struct addr *addr)
{
	return addr->w[2] == bpf_htonl(0xffff) && !(addr->w[0] | addr->w[1]);
}

static __always_inline bool same_addr(const struct addr *a, const struct addr *b)
{
	return !((a->w[0] ^ b->w[0]) | (a->w[1] ^ b->w[1]) | (a->w[2] ^ b->w[2]) | (a->w[3] ^ b->w[3]));
}

static __always_inline bool is_zero(const struct addr *addr)
{
	return !(addr->w[0] | addr->w[1] | addr->w[2] | addr->w[3]);
}

/* An address inside the mesh, in the family of the packets that it is for. */
static __always_inline void mesh_addr(struct addr *to, __be32 addr, __u8 version)
{
	if (version == 4) {
		map_v4(to, addr);
		return;
	}
	to->w[0] = MESH_PREFIX_0;
	to->w[1] = MESH_PREFIX_1;
	to->w[2] = 0;
	to->w[3] = addr;
}

static __always_inline bool is_mesh_addr(const struct addr *addr, __be32 of, __u8 version)
{
	struct addr mesh;

	if (likely(addr->w[3] != of))
		return false;
	mesh_addr(&mesh, of, version);
	return same_addr(&mesh, addr);
}

static __always_inline bool has_handshake(__u8 proto)
{
	return proto == PROTO_TCP || proto == PROTO_SCTP;
}

/* Whether the packet may be the first of a flow. */
static __always_inline bool opens(const struct packet *packet)
{
	return !has_handshake(packet->key.proto) || (packet->signals & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
}

/* Makes `need` bytes readable in place. */
static __always_inline bool readable(struct __sk_buff *skb, __u32 need)
{
	if (likely((void *)(long)skb->data + need <= (void *)(long)skb->data_end))
		return true;
	return skb->len >= need && bpf_skb_pull_data(skb, need) == 0;
}

/* What the first chunk of an association's packet says, in the words of TCP (RFC 9260, 3.3). */
static __always_inline __u8 sctp_signals(__u8 chunk)
{
	switch (chunk) {
	case SCTP_INIT:
		return TCP_SYN;
	case SCTP_INIT_ACK:
		return TCP_SYN | TCP_ACK;
	case SCTP_ABORT:
		return TCP_RST;
	case SCTP_SHUTDOWN:
	case SCTP_SHUTDOWN_ACK:
		return TCP_FIN | TCP_ACK;
	}
	return TCP_ACK;
}

static __always_inline enum parsed parse_transport(struct __sk_buff *skb, struct packet *packet)
{
	__u8 proto = packet->key.proto;
	__u32 header = sizeof(struct udphdr);
	__u32 l4 = packet->l4;
	struct tcphdr *tcp;
	struct sctphdr *sctp;

	if (proto == PROTO_TCP)
		header = sizeof(struct tcphdr);
	else if (proto == PROTO_SCTP)
		header = sizeof(struct sctphdr);
	if (l4 > DEEPEST_L4)
		return PARSED_OTHER;
	if (packet->length < header || !readable(skb, l4 + header))
		return PARSED_BAD;
	tcp = (void *)(long)skb->data + l4;
	if ((void *)tcp + sizeof(struct udphdr) > (void *)(long)skb->data_end)
		return PARSED_BAD;
	packet->key.sport = tcp->sport;
	packet->key.dport = tcp->dport;
	if (proto == PROTO_UDP)
		return PARSED;
	if (proto == PROTO_SCTP) {
		sctp = (void *)tcp;
		if ((void *)(sctp + 1) > (void *)(long)skb->data_end)
			return PARSED_BAD;
		packet->signals = sctp_signals(sctp->chunk);
		return PARSED;
	}
	if ((void *)(tcp + 1) > (void *)(long)skb->data_end)
		return PARSED_BAD;
	packet->signals = tcp->flags;
	return PARSED;
}

static __always_inline enum parsed parse_v4(struct __sk_buff *skb, struct packet *packet, __u32 l2)
{
	struct iphdr *ip;
	__u32 header, total;

	if (!readable(skb, l2 + sizeof(*ip)))
		return PARSED_BAD;
	ip = (void *)(long)skb->data + l2;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return PARSED_BAD;
	header = (ip->version_ihl & 0x0f) * 4;
	total = bpf_ntohs(ip->total);
	map_v4(&packet->key.saddr, ip->saddr);
	map_v4(&packet->key.daddr, ip->daddr);
	packet->key.proto = ip->proto;
	packet->version = 4;
	packet->id = ip->id;
	packet->whole = !!(ip->fragment & bpf_htons(FRAGMENT_NEVER));
	packet->l4 = l2 + header;
	packet->length = total - header;
	if (ip->fragment & bpf_htons(FRAGMENT_OFFSET))
		packet->fragment = FRAGMENT_LATER;
	else if (ip->fragment & bpf_htons(FRAGMENT_MORE))
		packet->fragment = FRAGMENT_FIRST;
	if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip) || total < header || total + l2 > skb->len)
		return PARSED_BAD;
	return PARSED;
}

static __always_inline enum parsed parse_v6(struct __sk_buff *skb, struct packet *packet, __u32 l2)
{
	__u32 l4 = l2 + sizeof(struct ipv6hdr);
	struct ipv6hdr *ip;
	__u32 payload;
	__u8 next;

	if (!readable(skb, l4))
		return PARSED_BAD;
	ip = (void *)(long)skb->data + l2;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return PARSED_BAD;
	__builtin_memcpy(&packet->key.saddr, ip->saddr, sizeof(struct addr));
	__builtin_memcpy(&packet->key.daddr, ip->daddr, sizeof(struct addr));
	packet->version = 6;
	packet->whole = 1;
	payload = bpf_ntohs(ip->payload);
	next = ip->next;
	if (ip->version_class >> 4 != 6 || payload + l4 > skb->len)
		return PARSED_BAD;
	for (int i = 0; i < EXTENSIONS; i++) {
		struct fragment_header header;
		__u32 size;

		if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_FRAGMENT && next != NEXT_DESTINATION)
			break;
		if (bpf_skb_load_bytes(skb, l4, &header, sizeof(header)))
			return PARSED_BAD;
		size = sizeof(header);
		if (next == NEXT_FRAGMENT) {
			packet->id = header.id;
			if (header.offset & bpf_htons(0xfff8))
				packet->fragment = FRAGMENT_LATER;
			else if (header.offset & bpf_htons(1))
				packet->fragment = FRAGMENT_FIRST;
		} else {
			/* The second byte of every other extension header is its length. */
			size += header.reserved * 8;
		}
		if (payload < size || l4 + size > DEEPEST_L4)
			return PARSED_OTHER;
		payload -= size;
		l4 += size;
		next = header.next;
	}
	packet->key.proto = next;
	packet->l4 = l4;
	packet->length = payload;
	return PARSED;
}

/* `packet` must be zeroed; `l2` is the size of the frame's header. */
static __always_inline enum parsed parse(struct __sk_buff *skb, struct packet *packet, __u32 l2)
{
	enum parsed parsed = PARSED_OTHER;
	__u8 proto;

	if (skb->vlan_present)
		return PARSED_OTHER;
	if (likely(skb->protocol == bpf_htons(ETHERTYPE_IPV4)))
		parsed = parse_v4(skb, packet, l2);
	else if (skb->protocol == bpf_htons(ETHERTYPE_IPV6))
		parsed = parse_v6(skb, packet, l2);
	if (parsed != PARSED)
		return parsed;
	proto = packet->key.proto;
	if (proto == (packet->version == 4 ? PROTO_ICMP : PROTO_ICMPV6))
		return packet->fragment ? PARSED_OTHER : PARSED_ICMP;
	if (proto != PROTO_TCP && proto != PROTO_UDP && proto != PROTO_SCTP)
		return PARSED_OTHER;
	if (packet->fragment == FRAGMENT_LATER)
		return PARSED_FRAGMENT;
	return parse_transport(skb, packet);
}

/* Gives a packet of a device without frames the header of one: all that follows works on frames. */
__verified_once int frame_packet(struct __sk_buff *skb, struct packet *packet)
{
	__be16 proto;

	if (!packet || bpf_skb_change_head(skb, sizeof(struct ethhdr), 0))
		return false;
	packet->l4 += sizeof(struct ethhdr);
	proto = skb->protocol;
	return bpf_skb_store_bytes(skb, __builtin_offsetof(struct ethhdr, proto), &proto, sizeof(proto), 0) == 0;
}
