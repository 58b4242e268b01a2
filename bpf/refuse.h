/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Answers to packets that nobody will take: a reset for TCP (RFC 9293, 3.10.7.1), unreachable for the others (RFC 792, RFC 4443),
 * too-big for those that do not fit into the overlay (RFC 1191, RFC 8201), time-exceeded for those that have come too far. The packet is
 * turned into its own answer and goes back the way it came.
 */
#pragma once

#include "flows.h"

/* The sum of a pseudo header, and what the checksum field holds while the rest is left to the device. */
static __always_inline __u16 pseudo(const struct packet *packet, __u8 proto, __u32 length)
{
	const struct flow_key *key = &packet->key;
	__u64 sum = (__u64)key->saddr.w[3] + key->daddr.w[3] + bpf_htons(proto) + bpf_htons(length);

	if (packet->version == 6)
		sum += (__u64)key->saddr.w[0] + key->saddr.w[1] + key->saddr.w[2] + key->daddr.w[0] + key->daddr.w[1] + key->daddr.w[2];
	return fold(sum);
}

static __always_inline void answer_v4(struct iphdr *ip, const struct packet *packet, __u16 total, __u8 proto)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version_ihl = 0x45;
	ip->total = bpf_htons(total);
	ip->fragment = bpf_htons(FRAGMENT_NEVER);
	ip->ttl = 64;
	ip->proto = proto;
	ip->saddr = packet->key.daddr.w[3];
	ip->daddr = packet->key.saddr.w[3];
	ip->check = ~fold(bpf_csum_diff(NULL, 0, ip, sizeof(*ip), 0));
}

static __always_inline void answer_v6(struct ipv6hdr *ip, const struct packet *packet, __u16 payload, __u8 proto)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version_class = 6 << 4;
	ip->payload = bpf_htons(payload);
	ip->next = proto;
	ip->hops = 64;
	__builtin_memcpy(ip->saddr, &packet->key.daddr, sizeof(ip->saddr));
	__builtin_memcpy(ip->daddr, &packet->key.saddr, sizeof(ip->daddr));
}

/* Where the transport header of a packet without options or extension headers is. */
static __always_inline __u32 plain_l4(const struct packet *packet)
{
	return sizeof(struct ethhdr) + (packet->version == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
}

static __always_inline bool reset_of(struct __sk_buff *skb, const struct packet *packet, struct tcphdr *tcp)
{
	__u16 length = packet->length;
	struct tcphdr was;
	__u32 consumed;

	if (packet->signals & TCP_RST || bpf_skb_load_bytes(skb, packet->l4, &was, sizeof(was)))
		return false;
	__builtin_memset(tcp, 0, sizeof(*tcp));
	consumed = length - (was.offset >> 4) * 4 + !!(was.flags & TCP_SYN) + !!(was.flags & TCP_FIN);
	tcp->sport = was.dport;
	tcp->dport = was.sport;
	tcp->offset = 5 << 4;
	if (was.flags & TCP_ACK) {
		tcp->seq = was.ack;
		tcp->flags = TCP_RST;
	} else {
		tcp->ack = bpf_htonl(bpf_ntohl(was.seq) + consumed);
		tcp->flags = TCP_RST | TCP_ACK;
	}
	/* A checksum that is left to the device stays so: there is no way to tell it otherwise. */
	tcp->check = pseudo(packet, PROTO_TCP, sizeof(*tcp));
	if (was.check != pseudo(packet, PROTO_TCP, length))
		tcp->check = ~fold(bpf_csum_diff(NULL, 0, tcp, sizeof(*tcp), 0));
	return true;
}

/* How many zeros are written at once, and how often: enough for the longest frames. */
#define ZEROS 32
#define ZEROS_TIMES 512

/*
 * Ends a packet behind so many bytes. The kernel makes none shorter that it takes for a tunnel's, as it goes on to do with one that a program
 * has taken out of the headers. Then zeros stay behind its end, where nobody looks, and add nothing to a sum that is left to a device.
 */
__verified_once int cut(struct __sk_buff *skb, __u32 size)
{
	const __u64 zeros[ZEROS / 8] = {};

	if (likely(bpf_skb_change_tail(skb, size, 0) == 0))
		return 1;
	for (int i = 0; i < ZEROS_TIMES && size < skb->len; i++) {
		__u32 left = skb->len - size, some = left >= ZEROS ? ZEROS : left >= ZEROS / 4 ? ZEROS / 4 : 1;

		if (bpf_skb_store_bytes(skb, size, zeros, some, F_RECOMPUTE_CSUM))
			return 0;
		size += some;
	}
	return size >= skb->len;
}

__verified_once int reset(struct __sk_buff *skb, const struct packet *packet)
{
	const __u32 l2 = sizeof(struct ethhdr);
	struct ipv6hdr v6;
	struct iphdr v4;
	struct tcphdr tcp;
	__u32 l4;

	if (!packet)
		return 0;
	l4 = plain_l4(packet);
	if (!reset_of(skb, packet, &tcp) || !cut(skb, l4 + sizeof(tcp)) ||
	    bpf_skb_store_bytes(skb, l4, &tcp, sizeof(tcp), F_RECOMPUTE_CSUM))
		return false;
	if (packet->version == 4) {
		answer_v4(&v4, packet, sizeof(v4) + sizeof(tcp), PROTO_TCP);
		return bpf_skb_store_bytes(skb, l2, &v4, sizeof(v4), F_RECOMPUTE_CSUM) == 0;
	}
	answer_v6(&v6, packet, sizeof(tcp), PROTO_TCP);
	return bpf_skb_store_bytes(skb, l2, &v6, sizeof(v6), F_RECOMPUTE_CSUM) == 0;
}

/* What an error quotes of the transport's part: so much that a checksum left to a device is in it. */
#define QUOTED_TCP sizeof(struct tcphdr)
#define QUOTED_OTHER sizeof(struct udphdr)

static __always_inline __u32 quoted_bytes(const struct packet *packet)
{
	return packet->key.proto == PROTO_TCP ? QUOTED_TCP : QUOTED_OTHER;
}

/*
 * The sum of what an error quotes of the transport's part, as it will be once every device has done its share: a checksum that is left
 * to the device will be filled in there too, over what is quoted.
 */
__verified_once int quoted_sum(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 l4[QUOTED_TCP / 4] = {};
	__u16 *field;
	bool tcp, left;

	if (!packet)
		return 0;
	tcp = packet->key.proto == PROTO_TCP;
	if (bpf_skb_load_bytes(skb, packet->l4, l4, tcp ? QUOTED_TCP : QUOTED_OTHER))
		return 0;
	field = tcp ? (__u16 *)&l4[4] : (__u16 *)&l4[1] + 1;
	left = tcp || packet->key.proto == PROTO_UDP;
	if (left && *field && *field == pseudo(packet, packet->key.proto, packet->length))
		*field = ~fold(bpf_csum_diff(NULL, 0, l4, sizeof(l4), 0));
	return fold(bpf_csum_diff(NULL, 0, l4, sizeof(l4), 0));
}

/* Type, code and the second word of an ICMP error. */
struct complaint {
	__u8 type;
	__u8 code;
	__be32 rest;
};

static __always_inline void icmp_of(struct icmphdr *icmp, const struct complaint *complaint)
{
	icmp->type = complaint->type;
	icmp->code = complaint->code;
	icmp->check = 0;
	icmp->rest = complaint->rest;
}

/* Puts the headers of an error before what it quotes, which stays where it is. */
static __always_inline bool put_before(struct __sk_buff *skb, const struct packet *packet, const void *headers, __u32 size)
{
	return cut(skb, packet->l4 + quoted_bytes(packet)) &&
	       bpf_skb_adjust_room(skb, size, ADJ_ROOM_MAC, 0) == 0 &&
	       bpf_skb_store_bytes(skb, sizeof(struct ethhdr), headers, size, F_RECOMPUTE_CSUM) == 0;
}

__verified_once int complain_v4(struct __sk_buff *skb, const struct packet *packet, const struct complaint *complaint)
{
	struct {
		struct iphdr ip;
		struct icmphdr icmp;
	} error;
	struct iphdr about;
	__u64 sum;

	if (!packet || !complaint || bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &about, sizeof(about)))
		return 0;
	answer_v4(&error.ip, packet, sizeof(error) + sizeof(about) + quoted_bytes(packet), PROTO_ICMP);
	icmp_of(&error.icmp, complaint);
	sum = bpf_csum_diff(NULL, 0, &about, sizeof(about), quoted_sum(skb, packet));
	error.icmp.check = ~fold(bpf_csum_diff(NULL, 0, &error.icmp, sizeof(error.icmp), sum));
	return put_before(skb, packet, &error, sizeof(error));
}

__verified_once int complain_v6(struct __sk_buff *skb, const struct packet *packet, const struct complaint *complaint)
{
	struct {
		struct ipv6hdr ip;
		struct icmphdr icmp;
	} error;
	__u32 length;
	__u64 sum;

	/* The quoted header is read where the new one will be made. */
	if (!packet || !complaint || bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &error.ip, sizeof(error.ip)))
		return 0;
	length = sizeof(error.icmp) + sizeof(error.ip) + quoted_bytes(packet);
	sum = bpf_csum_diff(NULL, 0, &error.ip, sizeof(error.ip), quoted_sum(skb, packet)) + pseudo(packet, PROTO_ICMPV6, length);
	answer_v6(&error.ip, packet, length, PROTO_ICMPV6);
	icmp_of(&error.icmp, complaint);
	error.icmp.check = ~fold(bpf_csum_diff(NULL, 0, &error.icmp, sizeof(error.icmp), 0) + sum);
	return put_before(skb, packet, &error, sizeof(error));
}

static __always_inline bool complain(struct __sk_buff *skb, const struct packet *packet, const struct complaint *complaint)
{
	return packet->version == 4 ? complain_v4(skb, packet, complaint) : complain_v6(skb, packet, complaint);
}

static __always_inline int answer(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit)
{
	struct flow back = {};

	way_back(skb, visit, &back);
	return to_client(skb, &back, &packet->key.saddr, 0);
}

static __always_inline bool is_icmp(const struct packet *packet)
{
	return packet->key.proto == (packet->version == 4 ? PROTO_ICMP : PROTO_ICMPV6);
}

/* What stands for a port: the first half of the second word. */
static __always_inline __be16 echo_id(const struct icmphdr *icmp)
{
	return (__u16)icmp->rest;
}

static __always_inline void set_echo_id(struct icmphdr *icmp, __be16 id)
{
	icmp->rest = (icmp->rest & 0xffff0000) | id;
}

/* The header of an echo request or of what answers it. */
static __always_inline bool read_echo(struct __sk_buff *skb, const struct packet *packet, bool request, struct icmphdr *icmp)
{
	__u8 wanted;

	if (packet->version == 4)
		wanted = request ? ICMP_ECHO : ICMP_ECHO_REPLY;
	else
		wanted = request ? ICMPV6_ECHO : ICMPV6_ECHO_REPLY;
	return bpf_skb_load_bytes(skb, packet->l4, icmp, sizeof(*icmp)) == 0 && icmp->type == wanted && icmp->code == 0;
}

/* Packets with IP options or extension headers get no answer, nor do fragments, nor errors (RFC 1122, 3.2.2). */
static __always_inline bool is_answerable(struct __sk_buff *skb, const struct packet *packet)
{
	struct icmphdr icmp;

	if (packet->l4 != plain_l4(packet) || packet->fragment || packet->length < quoted_bytes(packet))
		return false;
	return !is_icmp(packet) || read_echo(skb, packet, true, &icmp);
}

/* How a packet that is no TCP is refused for a reason. */
static __always_inline void refusal_v4(struct complaint *complaint, const struct packet *packet, __u32 reason)
{
	complaint->type = ICMP_UNREACHABLE;
	/* Of UDP only an unreachable port is heard by whoever sent it. */
	if (reason == DROP_OTHER_NETWORK && packet->key.proto != PROTO_UDP)
		complaint->code = ICMP_HOST_UNREACHABLE;
	else if (reason == DROP_NO_WAY_OUT)
		complaint->code = ICMP_PROHIBITED;
	else if (reason == DROP_NO_ROUTE)
		complaint->code = ICMP_NET_UNREACHABLE;
	else
		complaint->code = packet->key.proto == PROTO_SCTP ? ICMP_PROTOCOL_UNREACHABLE : ICMP_PORT_UNREACHABLE;
}

static __always_inline void refusal_v6(struct complaint *complaint, const struct packet *packet, __u32 reason)
{
	complaint->type = ICMPV6_UNREACHABLE;
	if (reason == DROP_OTHER_NETWORK && packet->key.proto != PROTO_UDP)
		complaint->code = ICMPV6_ADDRESS_UNREACHABLE;
	else if (reason == DROP_NO_WAY_OUT)
		complaint->code = ICMPV6_PROHIBITED;
	else if (reason == DROP_NO_ROUTE)
		complaint->code = ICMPV6_NO_ROUTE;
	else
		complaint->code = ICMPV6_PORT_UNREACHABLE;
}

/* Answers a client's packet with a refusal, and counts why. Who may not go where it wants is told so, whatever it wants there. */
__verified_once int refuse(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit, __u32 reason)
{
	struct complaint complaint = {};
	bool resets, turned;

	if (!packet || !visit)
		return VERDICT_DROP;
	count_drop(reason);
	if (!is_answerable(skb, packet))
		return VERDICT_DROP;
	if (packet->version == 4)
		refusal_v4(&complaint, packet, reason);
	else
		refusal_v6(&complaint, packet, reason);
	resets = packet->key.proto == PROTO_TCP && reason != DROP_NO_WAY_OUT && reason != DROP_NO_ROUTE;
	turned = resets ? reset(skb, packet) : complain(skb, packet, &complaint);
	return turned ? answer(skb, packet, visit) : VERDICT_DROP;
}

/* Whether a packet is bigger than the overlay takes and may not be cut up. Segments that are still together fit by their SYN. */
static __always_inline bool is_too_big(struct __sk_buff *skb, const struct packet *packet, const struct node *own)
{
	return packet->whole && !skb->gso_size && skb->len > own->mtu + sizeof(struct ethhdr);
}

/* Tells a client how big its packets may be: `mtu`, or as the overlay takes them when that is 0. */
__verified_once int refuse_size(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit, __u32 mtu)
{
	struct complaint complaint = { .type = ICMP_UNREACHABLE, .code = ICMP_FRAGMENTATION_NEEDED };
	struct node *own = own_node();

	if (!packet || !visit || !own)
		return VERDICT_DROP;
	count_event(EVENT_TOO_BIG);
	if (!is_answerable(skb, packet))
		return VERDICT_DROP;
	complaint.rest = bpf_htonl(mtu ? mtu : own->mtu);
	if (packet->version == 6) {
		complaint.type = ICMPV6_TOO_BIG;
		complaint.code = 0;
	}
	return complain(skb, packet, &complaint) ? answer(skb, packet, visit) : VERDICT_DROP;
}

/* Makes an error that speaks for the one that was asked the node's own, whose address is `by`. */
static __always_inline bool own_up(struct __sk_buff *skb, const struct packet *packet, const struct addr *by)
{
	const __u32 check = sizeof(struct ethhdr) + sizeof(struct ipv6hdr) + __builtin_offsetof(struct icmphdr, check);
	struct tuple to = { .saddr = *by, .daddr = packet->key.saddr };
	__s64 delta = bpf_csum_diff(&packet->key.daddr, sizeof(struct addr), by, sizeof(struct addr), 0);

	if (packet->version == 6 && !patch_pseudo(skb, packet, check, delta, 0))
		return false;
	return rewrite_network(skb, packet, &to, delta);
}

/* Tells a task that its packet has come too far; `by` is the node's address. */
__verified_once int refuse_hops(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit, const struct addr *by)
{
	struct complaint complaint = { .type = ICMP_TIME_EXCEEDED };

	if (!packet || !visit || !by)
		return VERDICT_DROP;
	count_event(EVENT_HOPS_EXCEEDED);
	if (!is_answerable(skb, packet))
		return VERDICT_DROP;
	if (packet->version == 6)
		complaint.type = ICMPV6_TIME_EXCEEDED;
	if (!complain(skb, packet, &complaint) || !own_up(skb, packet, by))
		return VERDICT_DROP;
	return answer(skb, packet, visit);
}
