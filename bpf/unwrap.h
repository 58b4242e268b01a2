/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What comes in by the tunnel from nodes that are sent to straight is taken out of its headers where it arrives. That saves the way through the
 * host's IP stack to the tunnel's own device. It is done where nothing is left to ask about the headers; all else goes on to the device.
 */
#pragma once

#include "rewrite.h"
#include "tunnel.h"

/*
 * For how long, in ticks, a flow stays with the device after a packet of it has gone there. That is many times what a packet needs, so that
 * those which come after it do not overtake it.
 */
#define DETOUR_TICKS 16

/* Where the tunnel's UDP header is. */
#define OUTER_L4 (sizeof(struct ethhdr) + sizeof(struct iphdr))

/* Where the packet within is. */
#define WITHIN (sizeof(struct ethhdr) + WRAPPING)

/* Where it is noted that packets of a flow go to the device, by the addresses within and what is behind them; NULL for none of the tunnel's. */
static __always_inline __u32 *detour_of(struct __sk_buff *skb)
{
	const struct ethhdr *inner;
	const __u32 *ports;
	__u32 flow;

	if (!readable(skb, WITHIN + sizeof(struct iphdr) + sizeof(*ports)))
		return NULL;
	inner = (void *)(long)skb->data + WITHIN - sizeof(*inner);
	if ((void *)(inner + 1) + sizeof(struct iphdr) + sizeof(*ports) > (void *)(long)skb->data_end)
		return NULL;
	if (inner->proto == bpf_htons(ETHERTYPE_IPV4)) {
		const struct iphdr *ip = (void *)(inner + 1);

		ports = (void *)(ip + 1);
		flow = ip->saddr ^ mix(ip->daddr ^ mix(*ports));
	} else if (inner->proto == bpf_htons(ETHERTYPE_IPV6) && readable(skb, WITHIN + sizeof(struct ipv6hdr) + sizeof(*ports))) {
		const struct ipv6hdr *ip = (void *)(long)skb->data + WITHIN;

		ports = (void *)(ip + 1);
		if ((void *)(ports + 1) > (void *)(long)skb->data_end)
			return NULL;
		flow = ip->saddr[3] ^ mix(ip->daddr[3] ^ mix(*ports));
	} else {
		return NULL;
	}
	flow = mix(flow) % DETOURS;
	return bpf_map_lookup_elem(&detours, &flow);
}

/* Whether the sum of an IPv4 header without options is right. */
static __always_inline bool is_sound(const struct iphdr *ip)
{
	const __u32 *words = (const void *)ip;

	return fold((__u64)words[0] + words[1] + words[2] + words[3] + words[4]) == 0xffff;
}

/* Whether what is within is part of a packet, or has headers that may say so: one part must not overtake another. */
static __always_inline bool is_part(const struct ethhdr *inner)
{
	const struct iphdr *v4 = (const void *)(inner + 1);
	const struct ipv6hdr *v6 = (const void *)(inner + 1);

	if (inner->proto == bpf_htons(ETHERTYPE_IPV4))
		return v4->fragment & bpf_htons(FRAGMENT_OFFSET | FRAGMENT_MORE);
	return v6->next == NEXT_HOP_BY_HOP || v6->next == NEXT_ROUTING || v6->next == NEXT_FRAGMENT || v6->next == NEXT_DESTINATION;
}

/* Whether nothing is left to ask about the outer headers. A mark of congestion would have to be taken over, a sum to be checked. */
static __always_inline bool is_plain(struct __sk_buff *skb, const struct packet *packet, const struct wrapping *outer)
{
	return skb->pkt_type == PACKET_HOST && !packet->fragment && packet->length + OUTER_L4 == skb->len &&
	       outer->udp.len == bpf_htons(packet->length) && !outer->udp.check && (outer->ip.tos & 3) != 3 && is_sound(&outer->ip);
}

/* The network identifier in the headers if it is one of ours, or 0. */
static __always_inline __u32 vni_of(const struct wrapping *outer)
{
	__u32 vni = bpf_ntohl(outer->vxlan.vni);

	if (outer->vxlan.flags != bpf_htonl(VXLAN_HAS_VNI) || vni & 0xff)
		return 0;
	vni >>= 8;
	return vni >= VNI_FORWARD && vni <= VNI_DIRECT ? vni : 0;
}

/*
 * Takes a packet out of the tunnel's headers, of which those of IPv4 have been read, and says who sent it and with what. Returns its network
 * identifier; 0 when it stays as it is, because it is not the tunnel's or the device sees to it. Those that stand for several segments are
 * such: before Linux 7 the kernel would go on to take them for a tunnel's.
 */
__verified_once int unwrap(struct __sk_buff *skb, const struct packet *packet, struct visit *visit)
{
	__u64 room = F_ROOM_KEEP_SUM;
	struct node *own = own_node();
	const struct wrapping *outer;
	const struct ethhdr *inner;
	struct address *from;
	__u32 *detour, vni;
	struct ethhdr *eth;
	__be16 proto;

	if (!packet || !visit || !own || packet->key.dport != own->tunnel_port || packet->l4 != OUTER_L4 ||
	    packet->fragment == FRAGMENT_LATER || !same_addr(&packet->key.daddr, &own->underlay))
		return 0;
	from = address_at(&packet->key.saddr);
	if (!from || from->ifindex != skb->ifindex)
		return 0;
	detour = detour_of(skb);
	outer = (void *)(long)skb->data + sizeof(*eth);
	inner = (void *)(outer + 1);
	if (!detour || (void *)(inner + 1) + sizeof(struct iphdr) > (void *)(long)skb->data_end)
		return 0;
	vni = vni_of(outer);
	if (!vni)
		return 0;
	if (skb->gso_size || is_part(inner) || !is_plain(skb, packet, outer)) {
		*detour = ticks();
		return 0;
	}
	if (unlikely(*detour) && ticks() - *detour <= DETOUR_TICKS)
		return 0;
	parcel_of(inner, &visit->parcel);
	visit->origin = packet->key.saddr;
	proto = inner->proto;
	if (proto == bpf_htons(ETHERTYPE_IPV6))
		room |= F_ROOM_WITHIN_IPV6;
	/* Before 6.3 the kernel cannot be told that it is IPv6. */
	if (bpf_skb_adjust_room(skb, -(__s32)WRAPPING, ADJ_ROOM_MAC, room)) {
		*detour = ticks();
		return 0;
	}
	/* What a device has said about sums, it has said about the datagram first. */
	bpf_csum_level(skb, CSUM_LEVEL_DOWN);
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) <= (void *)(long)skb->data_end)
		eth->proto = proto;
	return vni;
}
