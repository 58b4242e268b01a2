/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * ICMP errors about packets of our flows. The embedded packet went the other way than the error, after it had been rewritten; so it is
 * looked up turned round, and what would be done to a packet of that direction is done, turned round again, to the embedded one.
 */
#pragma once

#include "open.h"

/* The embedded packet as far as every error has it. */
struct quoted {
	struct flow_key key;	/* its tuple, as it was sent */
	__u32 at;		/* offset of its network header */
	__u32 l4;		/* and of its transport header */
};

static __always_inline bool is_error(__u8 type, __u8 version)
{
	if (version == 6)
		return type >= ICMPV6_UNREACHABLE && type <= ICMPV6_BAD_PARAMETER;
	return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_BAD_PARAMETER;
}

static __always_inline bool quoted_v4(struct __sk_buff *skb, struct quoted *quoted)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, quoted->at, &ip, sizeof(ip)))
		return false;
	quoted->l4 = quoted->at + (ip.version_ihl & 0x0f) * 4;
	if (ip.version_ihl >> 4 != 4 || quoted->l4 < quoted->at + sizeof(ip) || ip.fragment & bpf_htons(FRAGMENT_OFFSET))
		return false;
	map_v4(&quoted->key.saddr, ip.saddr);
	map_v4(&quoted->key.daddr, ip.daddr);
	quoted->key.proto = ip.proto;
	return true;
}

/* One with extension headers is left alone: nobody sends them with TCP or UDP but for fragments. */
static __always_inline bool quoted_v6(struct __sk_buff *skb, struct quoted *quoted)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, quoted->at, &ip, sizeof(ip)) || ip.version_class >> 4 != 6)
		return false;
	quoted->l4 = quoted->at + sizeof(ip);
	__builtin_memcpy(&quoted->key.saddr, ip.saddr, sizeof(struct addr));
	__builtin_memcpy(&quoted->key.daddr, ip.daddr, sizeof(struct addr));
	quoted->key.proto = ip.next;
	return true;
}

/* What an embedded packet has for ports: of an echo request its identifier, as in `egress.h`. */
static __always_inline bool quoted_ports(struct __sk_buff *skb, __u8 version, struct quoted *quoted)
{
	__u8 proto = quoted->key.proto;
	struct icmphdr echo;
	struct ports ports;

	if (proto == (version == 4 ? PROTO_ICMP : PROTO_ICMPV6)) {
		if (bpf_skb_load_bytes(skb, quoted->l4, &echo, sizeof(echo)) || echo.type != (version == 4 ? ICMP_ECHO : ICMPV6_ECHO))
			return false;
		quoted->key.sport = echo_id(&echo);
		quoted->key.dport = 0;
		return true;
	}
	if ((proto != PROTO_TCP && proto != PROTO_UDP && proto != PROTO_SCTP) ||
	    bpf_skb_load_bytes(skb, quoted->l4, &ports, sizeof(ports)))
		return false;
	quoted->key.sport = ports.sport;
	quoted->key.dport = ports.dport;
	return true;
}

/* Reads the embedded packet of an error. */
__verified_once int read_error(struct __sk_buff *skb, const struct packet *packet, struct quoted *quoted)
{
	struct icmphdr icmp;

	if (!packet || !quoted || bpf_skb_load_bytes(skb, packet->l4, &icmp, sizeof(icmp)) || !is_error(icmp.type, packet->version))
		return false;
	quoted->at = packet->l4 + sizeof(icmp);
	if (!(packet->version == 4 ? quoted_v4(skb, quoted) : quoted_v6(skb, quoted)))
		return false;
	return quoted_ports(skb, packet->version, quoted);
}

/* Makes up for what a change by `delta` of the error's payload does to its checksum. */
static __always_inline bool patch_error(struct __sk_buff *skb, const struct packet *packet, __s64 delta)
{
	return bpf_l4_csum_replace(skb, packet->l4 + __builtin_offsetof(struct icmphdr, check), 0, delta, 0) == 0;
}

/* The addresses of the embedded packet, and in IPv4 the header's checksum, which makes up for them. */
static __always_inline bool requote_network(struct __sk_buff *skb, const struct packet *packet, const struct quoted *quoted,
					    const struct tuple *to, __s64 delta)
{
	__u32 at = quoted->at;
	__u16 check;

	if (packet->version == 6)
		return bpf_skb_store_bytes(skb, at + __builtin_offsetof(struct ipv6hdr, saddr), &to->saddr, 32, 0) == 0 &&
		       patch_error(skb, packet, delta);
	if (bpf_skb_load_bytes(skb, at + __builtin_offsetof(struct iphdr, check), &check, sizeof(check)))
		return false;
	check = patched(check, delta);
	return bpf_skb_store_bytes(skb, at + __builtin_offsetof(struct iphdr, saddr), &to->saddr.w[3], 4, 0) == 0 &&
	       bpf_skb_store_bytes(skb, at + __builtin_offsetof(struct iphdr, daddr), &to->daddr.w[3], 4, 0) == 0 &&
	       bpf_skb_store_bytes(skb, at + __builtin_offsetof(struct iphdr, check), &check, sizeof(check), 0) == 0;
}

/* The identifier of the embedded echo request, and its checksum, which makes up for it: in IPv6 for the addresses too. */
static __always_inline bool requote_echo(struct __sk_buff *skb, const struct packet *packet, const struct quoted *quoted,
					 const struct tuple *to, __s64 delta)
{
	struct icmphdr was, now;

	if (bpf_skb_load_bytes(skb, quoted->l4, &was, sizeof(was)))
		return false;
	now = was;
	set_echo_id(&now, to->sport);
	now.check = patched(was.check, bpf_csum_diff(&was.rest, 4, &now.rest, 4, packet->version == 6 ? (__u32)delta : 0));
	return bpf_skb_store_bytes(skb, quoted->l4, &now, sizeof(now), 0) == 0 &&
	       patch_error(skb, packet, bpf_csum_diff(&was, sizeof(was), &now, sizeof(now), 0));
}

/* The ports of the embedded packet, and of UDP its checksum, which makes up for them and the addresses. */
static __always_inline bool requote_transport(struct __sk_buff *skb, const struct packet *packet, const struct quoted *quoted,
					      const struct tuple *to, __s64 delta)
{
	struct udphdr was, now;

	if (quoted->key.proto == PROTO_ICMP || quoted->key.proto == PROTO_ICMPV6)
		return requote_echo(skb, packet, quoted, to, delta);
	if (quoted->key.proto != PROTO_UDP) {
		/* Of these the checksum is further back than errors need to quote. */
		struct ports before = { quoted->key.sport, quoted->key.dport }, after = { to->sport, to->dport };

		return bpf_skb_store_bytes(skb, quoted->l4, &after, sizeof(after), 0) == 0 &&
		       patch_error(skb, packet, bpf_csum_diff(&before, sizeof(before), &after, sizeof(after), 0));
	}
	if (bpf_skb_load_bytes(skb, quoted->l4, &was, sizeof(was)))
		return false;
	now = was;
	now.sport = to->sport;
	now.dport = to->dport;
	if (was.check)
		now.check = patched(was.check, bpf_csum_diff(&was, 4, &now, 4, (__u32)delta));
	return bpf_skb_store_bytes(skb, quoted->l4, &now, sizeof(now), 0) == 0 &&
	       patch_error(skb, packet, bpf_csum_diff(&was, sizeof(was), &now, sizeof(now), 0));
}

/* Makes the embedded packet one of tuple `to`, and the error one from `from` to `at`. */
__verified_once int requote(struct __sk_buff *skb, const struct packet *packet, const struct quoted *quoted, const struct tuple *to,
			    const struct tuple *outer)
{
	__s64 delta;

	if (!packet || !quoted || !to || !outer)
		return 0;
	delta = addresses_delta(&quoted->key, to);
	if (!requote_network(skb, packet, quoted, to, delta) || !requote_transport(skb, packet, quoted, to, delta))
		return 0;
	delta = addresses_delta(&packet->key, outer);
	/* The checksum of ICMPv6 covers the addresses (RFC 4443, 2.3), that of ICMP does not. */
	if (packet->version == 6 && !patch_pseudo(skb, packet, packet->l4 + __builtin_offsetof(struct icmphdr, check), delta, 0))
		return 0;
	return rewrite_network(skb, packet, outer, delta);
}

/* An error to a task about one of its answers: from a client, or from a router on the way to it. */
__verified_once int error_into_task(struct __sk_buff *skb, const struct packet *packet, const struct quoted *quoted,
				    const struct flow_key *served)
{
	struct backend *backend;
	struct tuple to, outer;
	__u32 slot;

	if (!packet || !quoted || !served)
		return VERDICT_DROP;
	backend = local_task(served->saddr.w[3], &slot);
	if (!backend)
		return VERDICT_DROP;
	to.saddr = served->saddr;
	to.daddr = served->daddr;
	to.sport = served->sport;
	to.dport = served->dport;
	/* Who reports keeps its name, unless it is the flow's end itself. */
	outer.saddr = same_addr(&packet->key.saddr, &quoted->key.daddr) ? served->daddr : packet->key.saddr;
	outer.daddr = served->saddr;
	return requote(skb, packet, quoted, &to, &outer) ? to_task(skb, backend) : drop(DROP_REWRITE);
}

/* An error to another node, whose task's answer it is about. */
__verified_once int error_into_tunnel(struct __sk_buff *skb, const struct packet *packet, const struct quoted *quoted,
				      const struct flow *flow)
{
	struct parcel parcel = {};
	struct backend *backend;
	struct tuple to, outer;
	struct node *own = own_node();

	if (!packet || !quoted || !flow || !own)
		return VERDICT_DROP;
	backend = backend_at(flow->slot);
	if (!backend)
		return VERDICT_DROP;
	if (flow->flags & FLOW_CHANGED) {
		mesh_addr(&to.saddr, own->overlay, packet->version);
		to.daddr = to.saddr;
		to.sport = quoted->key.sport;
		to.dport = flow->port;
		outer.saddr = to.saddr;
		outer.daddr = to.saddr;
		if (!requote(skb, packet, quoted, &to, &outer))
			return drop(DROP_REWRITE);
	}
	parcel.task = backend->addr;
	parcel.target = flow->far_port;
	if (backend->flags & BACKEND_PREFIX)
		parcel.flags = PARCEL_PREFIX;
	return to_node_by_device(skb, &backend->node, is_tunneled(flow) ? VNI_SECOND : VNI_FORWARD, &parcel);
}

/* Whether an error is about an answer of ours to a client of this node, or about what a task has sent to the world outside. */
__verified_once int is_about_answer(struct __sk_buff *skb, const struct packet *packet)
{
	struct quoted quoted = {};
	struct flow_key key;

	if (!packet || !read_error(skb, packet, &quoted))
		return 0;
	turned(&key, &quoted.key, KIND_ASKED);
	if (bpf_map_lookup_elem(&flows, &key))
		return 1;
	key.kind = KIND_MASQUERADED;
	return bpf_map_lookup_elem(&flows, &key) != NULL;
}

/* Errors on the client's side of a node that was asked; and about what a task has sent to the world outside. */
__verified_once int error_from_client(struct __sk_buff *skb, const struct packet *packet)
{
	struct quoted quoted = {};
	struct backend *backend;
	struct flow_key key;
	struct flow *flow;
	struct node *own = own_node();

	if (!packet || !own || !read_error(skb, packet, &quoted))
		return VERDICT_NEXT;
	turned(&key, &quoted.key, KIND_ASKED);
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow) {
		key.kind = KIND_MASQUERADED;
		flow = bpf_map_lookup_elem(&flows, &key);
	}
	backend = flow ? backend_at(flow->slot) : NULL;
	if (!flow || !backend || backend_state(backend, flow) == BACKEND_GONE)
		return VERDICT_NEXT;
	if (key.kind == KIND_MASQUERADED) {
		key.daddr = key.saddr;
		key.saddr = flow->far;
		key.dport = key.sport;
		key.sport = flow->port;
		return error_into_task(skb, packet, &quoted, &key);
	}
	if (!is_zero(&backend->node))
		return error_into_tunnel(skb, packet, &quoted, flow);
	key.daddr = key.saddr;
	if (flow->flags & FLOW_CHANGED)
		mesh_addr(&key.daddr, own->overlay, packet->version);
	asked_task_addr(&key.saddr, backend->addr, backend->flags & BACKEND_PREFIX, &quoted.key.saddr, packet->version);
	key.sport = flow->far_port;
	key.dport = flow->port;
	return error_into_task(skb, packet, &quoted, &key);
}

/* The same ones where they arrive: about answers of a task of this node to a client of another. NEXT for those without such an entry. */
__verified_once int error_to_task(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit)
{
	struct quoted quoted = {};
	struct flow_key key;
	struct flow *flow;

	if (!packet || !visit || !(address_flags(&visit->origin) & ADDRESS_TRUSTED) || !read_error(skb, packet, &quoted))
		return VERDICT_DROP;
	asked_task_addr(&key.saddr, visit->parcel.task, visit->parcel.flags & PARCEL_PREFIX, &quoted.key.saddr, packet->version);
	expected_key(&key, &quoted.key.daddr, quoted.key.dport, quoted.key.proto, visit->parcel.target, packet->version);
	flow = bpf_map_lookup_elem(&flows, &key);
	/* By another port than the client's own, or passed on: as on the node that was asked. */
	if (!flow || !came_by(flow, &quoted.key.saddr, quoted.key.sport))
		return VERDICT_NEXT;
	return error_into_task(skb, packet, &quoted, &key);
}

/* Errors of a task about packets of its clients. NEXT when it is about nothing of ours. */
__verified_once int error_from_task(struct __sk_buff *skb, const struct packet *packet)
{
	struct quoted quoted = {};
	struct flow_key served;
	struct backend *backend;
	struct flow *flow;
	struct tuple to, outer;

	if (!packet || !read_error(skb, packet, &quoted))
		return VERDICT_NEXT;
	turned(&served, &quoted.key, KIND_SERVED);
	flow = bpf_map_lookup_elem(&flows, &served);
	backend = flow ? backend_at(flow->slot) : NULL;
	if (!flow || !backend)
		return VERDICT_NEXT;
	if (backend->ifindex != skb->ifindex || !same_addr(&packet->key.saddr, &served.saddr))
		return drop(DROP_SPOOFED);
	client_of(&to.saddr, &served, flow);
	to.daddr = flow->far;
	to.sport = flow->port;
	to.dport = flow->far_port;
	outer.saddr = flow->far;
	outer.daddr = to.saddr;
	if (!requote(skb, packet, &quoted, &to, &outer))
		return drop(DROP_REWRITE);
	return to_client(skb, flow, &outer.daddr, served.saddr.w[3]);
}

/* The same ones where they arrive, about packets of a client of this node. */
__verified_once int error_from_node(struct __sk_buff *skb, const struct packet *packet, const struct visit *visit)
{
	struct quoted quoted = {};
	struct flow_key key;
	struct flow *flow;

	if (!packet || !visit || !(address_flags(&visit->origin) & ADDRESS_TRUSTED) || !read_error(skb, packet, &quoted))
		return VERDICT_DROP;
	turned(&key, &quoted.key, KIND_LOOPED);
	flow = bpf_map_lookup_elem(&flows, &key);
	if (flow) {
		struct tuple to = { .saddr = flow->node, .daddr = flow->far, .sport = flow->port, .dport = key.sport };
		struct tuple outer = { .saddr = flow->far, .daddr = flow->node };

		return requote(skb, packet, &quoted, &to, &outer) ? to_client(skb, flow, &outer.daddr, 0) : drop(DROP_REWRITE);
	}
	quoted.key.kind = KIND_ASKED;
	flow = bpf_map_lookup_elem(&flows, &quoted.key);
	return flow ? to_client(skb, flow, &quoted.key.saddr, 0) : drop(DROP_UNKNOWN_FLOW);
}
