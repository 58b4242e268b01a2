/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Answers to packets that nobody will take: a reset for TCP (RFC 9293, 3.10.7.1), port-unreachable for UDP (RFC 792). The packet is
 * turned into its own answer and goes back the way it came.
 */
#pragma once

#include "flows.h"

/* The sum of a pseudo header, and what the checksum field holds while the rest is left to the device. */
static __always_inline __u16 pseudo(const struct packet *packet, __u16 length)
{
	__u64 sum = (__u64)packet->saddr + packet->daddr + bpf_htons(packet->proto) + bpf_htons(length);

	return fold(sum);
}

static __always_inline void answer_header(struct iphdr *ip, const struct packet *packet, __u16 total, __u8 proto)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version_ihl = 0x45;
	ip->total = bpf_htons(total);
	ip->fragment = bpf_htons(FRAGMENT_NEVER);
	ip->ttl = 64;
	ip->proto = proto;
	ip->saddr = packet->daddr;
	ip->daddr = packet->saddr;
	ip->check = ~fold(bpf_csum_diff(NULL, 0, ip, sizeof(*ip), 0));
}

static __always_inline bool refuse_tcp(struct __sk_buff *skb, const struct packet *packet)
{
	const __u32 l4 = sizeof(struct ethhdr) + sizeof(struct iphdr);
	__u16 length = packet->total - sizeof(struct iphdr);
	struct tcphdr was, tcp = {};
	struct iphdr ip;
	__u32 consumed;

	if (packet->tcp_flags & TCP_RST || bpf_skb_load_bytes(skb, l4, &was, sizeof(was)))
		return false;
	consumed = length - (was.offset >> 4) * 4 + !!(was.flags & TCP_SYN) + !!(was.flags & TCP_FIN);
	tcp.sport = was.dport;
	tcp.dport = was.sport;
	tcp.offset = 5 << 4;
	if (was.flags & TCP_ACK) {
		tcp.seq = was.ack;
		tcp.flags = TCP_RST;
	} else {
		tcp.ack = bpf_htonl(bpf_ntohl(was.seq) + consumed);
		tcp.flags = TCP_RST | TCP_ACK;
	}
	/* A checksum that is left to the device stays so: there is no way to tell it otherwise. */
	tcp.check = pseudo(packet, sizeof(tcp));
	if (was.check != pseudo(packet, length))
		tcp.check = ~fold(bpf_csum_diff(NULL, 0, &tcp, sizeof(tcp), 0));
	answer_header(&ip, packet, sizeof(ip) + sizeof(tcp), PROTO_TCP);
	return bpf_skb_change_tail(skb, l4 + sizeof(tcp), 0) == 0 &&
	       bpf_skb_store_bytes(skb, l4, &tcp, sizeof(tcp), F_RECOMPUTE_CSUM) == 0 &&
	       bpf_skb_store_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip), F_RECOMPUTE_CSUM) == 0;
}

/* What an ICMP error is made of: its own headers and the beginning of the packet that it is about. */
struct unreachable {
	struct iphdr ip;
	struct icmphdr icmp;
	struct iphdr about;
	struct udphdr udp;
};

static __always_inline bool refuse_udp(struct __sk_buff *skb, const struct packet *packet)
{
	const __u32 l2 = sizeof(struct ethhdr), l4 = l2 + sizeof(struct iphdr);
	__u16 length = packet->total - sizeof(struct iphdr);
	struct unreachable answer = {};
	__u16 field;

	if (bpf_skb_load_bytes(skb, l2, &answer.about, sizeof(answer.about)) ||
	    bpf_skb_load_bytes(skb, l4, &answer.udp, sizeof(answer.udp)))
		return false;
	answer_header(&answer.ip, packet, sizeof(answer), PROTO_ICMP);
	answer.icmp.type = ICMP_UNREACHABLE;
	answer.icmp.code = ICMP_PORT_UNREACHABLE;
	field = answer.udp.check;
	/* A device that still has to fill in the datagram's checksum will do so inside the error: this is what it will write. */
	if (field && field == pseudo(packet, length))
		answer.udp.check = ~fold(bpf_csum_diff(NULL, 0, &answer.udp, sizeof(answer.udp), 0));
	answer.icmp.check = ~fold(bpf_csum_diff(NULL, 0, &answer.icmp, sizeof(answer) - sizeof(answer.ip), 0));
	answer.udp.check = field;
	return bpf_skb_change_tail(skb, l4 + sizeof(answer.udp), 0) == 0 &&
	       bpf_skb_adjust_room(skb, sizeof(answer.ip) + sizeof(answer.icmp), ADJ_ROOM_MAC, 0) == 0 &&
	       bpf_skb_store_bytes(skb, l2, &answer, sizeof(answer), F_RECOMPUTE_CSUM) == 0;
}

/* Answers a packet that came by `key` with a refusal, and counts why. Packets with IP options and fragments get no answer. */
__verified_once int refuse(struct __sk_buff *skb, const struct flow_key *key, const struct packet *packet, __u32 reason)
{
	struct flow back = {};

	if (!key || !packet)
		return VERDICT_DROP;
	count_drop(reason);
	way_back(skb, key, &back);
	back.flags = FLOW_REVERSE;
	if (packet->l4 != sizeof(struct ethhdr) + sizeof(struct iphdr) || is_fragment(packet))
		return VERDICT_DROP;
	if (!(packet->proto == PROTO_TCP ? refuse_tcp(skb, packet) : refuse_udp(skb, packet)))
		return VERDICT_DROP;
	return deliver(skb, &back);
}
