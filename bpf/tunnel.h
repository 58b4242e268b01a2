/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The tunnel between nodes: VXLAN (RFC 7348). */
#pragma once

#include "frontends.h"

/* What one node tells another about a packet besides the packet. */
struct parcel {
	__be32 task;		/* which task it is for, or from */
	__be16 target;		/* which port of a task it is for */
	__u8 flags;
	__u8 pad;
};

enum {
	PARCEL_DIRECT = 1,	/* the client came by the underlay: who can may answer it there */
	PARCEL_PREFIX = 2,	/* the task's IPv6 address begins as the one that was asked */
};

/* A parcel travels as the frame's addresses, which nobody needs: receivers take frames for any. */
static __always_inline void address_parcel(struct ethhdr *eth, const struct parcel *parcel)
{
	const __u8 *task = (const void *)&parcel->task, *target = (const void *)&parcel->target;
	const __u8 dst[6] = { 0x02, 0x73, 0x6b, 0x01, target[0], target[1] };
	const __u8 src[6] = { 0x02, parcel->flags, task[0], task[1], task[2], task[3] };

	__builtin_memcpy(eth->dst, dst, 6);
	__builtin_memcpy(eth->src, src, 6);
}

static __always_inline bool write_parcel(struct __sk_buff *skb, const struct parcel *parcel)
{
	struct ethhdr *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return false;
	address_parcel(eth, parcel);
	return true;
}

static __always_inline void parcel_of(const struct ethhdr *eth, struct parcel *parcel)
{
	parcel->target = eth->dst[4] | (__u16)eth->dst[5] << 8;
	parcel->flags = eth->src[1];
	parcel->task = eth->src[2] | (__u32)eth->src[3] << 8 | (__u32)eth->src[4] << 16 | (__u32)eth->src[5] << 24;
}

static __always_inline bool read_parcel(struct __sk_buff *skb, struct parcel *parcel)
{
	struct ethhdr *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return false;
	parcel_of(eth, parcel);
	return true;
}

static __always_inline void tunnel_addr(__u32 *to, const struct addr *addr, bool v4)
{
	if (v4)
		to[0] = bpf_ntohl(addr->w[3]);
	else
		__builtin_memcpy(to, addr, sizeof(*addr));
}

/* Through the tunnel's own device to another node: it finds the way, and cuts up what is too big for it. */
__verified_once int to_node_by_device(struct __sk_buff *skb, const struct addr *node, __u32 vni, const struct parcel *parcel)
{
	struct node *own = own_node();
	struct tunnel_key key = { .tunnel_id = vni, .ttl = 64 };
	__u64 flags = F_ZERO_CSUM_TX;
	bool v4;

	if (!own || !node || !parcel)
		return VERDICT_DROP;
	v4 = is_v4(node);
	/* Over IPv6 a datagram without a checksum is dropped by whoever was not told to expect it. */
	if (!v4)
		flags = F_TUNINFO_IPV6;
	tunnel_addr(key.remote, node, v4);
	tunnel_addr(key.local, &own->underlay, v4);
	/* Before 6.0 the source address cannot be said: the route to the other node decides. */
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags) && bpf_skb_set_tunnel_key(skb, &key, TUNNEL_KEY_OLD, flags))
		return drop(DROP_REWRITE);
	if (!write_parcel(skb, parcel))
		return drop(DROP_REWRITE);
	return bpf_redirect(own->overlay_ifindex, 0);
}

/* What the tunnel puts before a frame. */
struct wrapping {
	struct iphdr ip;
	struct udphdr udp;
	struct vxlanhdr vxlan;
};
#define WRAPPING (sizeof(struct wrapping) + sizeof(struct ethhdr))
/* The longest packet that is wrapped: the length of the whole is a number of 16 bits. */
#define WRAPPED_MOST (65535 - WRAPPING)
/* Where the ports begin that tell flows from each other (RFC 7348, 5). */
#define ENTROPY_FIRST 0xc000

/* Header of TCP without options behind one of IP: a segment of the kernel's own size has room for it. */
static __always_inline __u32 least_headers(const struct __sk_buff *skb)
{
	return (skb->protocol == bpf_htons(ETHERTYPE_IPV6) ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) + sizeof(struct tcphdr);
}

/* Whether the packet, or each of its segments, fits into the overlay. */
static __always_inline bool fits_overlay(const struct __sk_buff *skb, const struct node *own)
{
	__u32 size = skb->len - sizeof(struct ethhdr);

	if (skb->gso_size)
		return size <= WRAPPED_MOST && skb->gso_size + least_headers(skb) <= own->mtu;
	return size <= own->mtu;
}

/* The bits of congestion of the packet within: they are the outer one's too (RFC 6040, 4.1). */
static __always_inline __u8 congestion_bits(struct __sk_buff *skb)
{
	__u8 *ip = (void *)(long)skb->data + sizeof(struct ethhdr);

	if ((void *)(ip + 2) > (void *)(long)skb->data_end)
		return 0;
	return (skb->protocol == bpf_htons(ETHERTYPE_IPV6) ? ip[1] >> 4 : ip[1]) & 3;
}

static __always_inline __u16 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

/* `total`: with what is behind it. */
static __always_inline void write_outer_ip(struct iphdr *ip, __be32 from, __be32 to, __u16 total, __u8 tos)
{
	const __u16 id = bpf_get_prandom_u32();

	ip->version_ihl = 0x45;
	ip->tos = tos;
	ip->total = bpf_htons(total);
	ip->id = id;
	ip->fragment = 0;
	ip->ttl = 64;
	ip->proto = PROTO_UDP;
	ip->saddr = from;
	ip->daddr = to;
	/* One's complement sums may be taken in either byte order (RFC 1071, 2). */
	ip->check = folded(bpf_htons(0x4500 | tos) + bpf_htons(total) + id + bpf_htons(64 << 8 | PROTO_UDP) + (from & 0xffff) +
			   (from >> 16) + (to & 0xffff) + (to >> 16));
}

/* Some devices sum up whole packets that they receive; the sum is of what has been put before them too. */
static __always_inline void sum_wrapping(struct __sk_buff *skb, const struct wrapping *outer, const struct ethhdr *inner)
{
	__s64 sum;

	if (bpf_csum_update(skb, 0) < 0)
		return;
	sum = bpf_csum_diff(NULL, 0, outer, sizeof(*outer), 0);
	if (sum >= 0)
		sum = bpf_csum_diff(NULL, 0, inner, sizeof(*inner) - sizeof(inner->proto), sum);
	if (sum >= 0) {
		bpf_csum_update(skb, sum);
		bpf_csum_update(skb, inner->proto);
	}
}

enum wrapped { WRAPPED, WRAPPED_NOT, WRAPPED_BADLY };

/*
 * Puts the tunnel's headers before an IPv4 or IPv6 packet for a node with an IPv4 address, as the tunnel's own device would; not before what the
 * kernel would not know how to cut up then. The frame's header in front is nobody's: whoever sends the packet off writes another.
 */
__verified_once int wrap(struct __sk_buff *skb, const struct addr *node, __u32 vni, const struct parcel *parcel)
{
	const __u64 room = F_ROOM_FIXED_SEGMENTS | F_ROOM_IPV4 | F_ROOM_UDP | F_ROOM_ETHERNET | F_ROOM_INNER_HEADER(sizeof(struct ethhdr));
	const __u16 total = skb->len - sizeof(struct ethhdr) + WRAPPING;
	const __u16 entropy = ENTROPY_FIRST | (bpf_get_hash_recalc(skb) & 0x3fff);
	const __u8 tos = congestion_bits(skb);
	const __be16 proto = skb->protocol;
	struct node *own = own_node();
	struct wrapping *outer;
	struct ethhdr *inner;

	if (!own || !node || !parcel)
		return WRAPPED_BADLY;
	if (bpf_skb_adjust_room(skb, WRAPPING, ADJ_ROOM_MAC, room))
		return WRAPPED_NOT;
	outer = (void *)(long)skb->data + sizeof(struct ethhdr);
	inner = (void *)(outer + 1);
	if ((void *)(inner + 1) > (void *)(long)skb->data_end)
		return WRAPPED_BADLY;
	write_outer_ip(&outer->ip, own->underlay.w[3], node->w[3], total, tos);
	outer->udp.sport = bpf_htons(entropy);
	outer->udp.dport = own->tunnel_port;
	outer->udp.len = bpf_htons(total - sizeof(struct iphdr));
	outer->udp.check = 0;
	outer->vxlan.flags = bpf_htonl(VXLAN_HAS_VNI);
	outer->vxlan.vni = bpf_htonl(vni << 8);
	address_parcel(inner, parcel);
	inner->proto = proto;
	sum_wrapping(skb, outer, inner);
	return WRAPPED;
}

/* Through the tunnel to another node; straight, where the daemon has found that nothing needs the tunnel's own device. */
__verified_once int to_node(struct __sk_buff *skb, const struct addr *node, __u32 vni, const struct parcel *parcel)
{
	struct node *own = own_node();
	struct address *to;

	if (!own || !node || !parcel)
		return VERDICT_DROP;
	to = address_at(node);
	if (likely(to && to->ifindex && fits_overlay(skb, own))) {
		int done = wrap(skb, node, vni, parcel);

		if (likely(done == WRAPPED))
			return bpf_redirect_neigh(to->ifindex, NULL, 0, 0);
		if (done == WRAPPED_BADLY)
			return drop(DROP_REWRITE);
	}
	return to_node_by_device(skb, node, vni, parcel);
}
