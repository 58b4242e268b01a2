/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* From (address, protocol, port) to a backend. */
#pragma once

#include "parse.h"

static __always_inline bool is_published(__u8 proto, __be16 port)
{
	__u32 index = proto == PROTO_UDP;
	struct port_bits *bits = bpf_map_lookup_elem(&ports, &index);
	__u16 number = bpf_ntohs(port);

	return bits && bits->words[number >> 6] >> (number & 63) & 1;
}

static __always_inline __u32 address_flags(__be32 addr)
{
	__u32 *flags = bpf_map_lookup_elem(&addresses, &addr);

	return flags ? *flags : 0;
}

static __always_inline struct backend *backend_at(__u32 slot)
{
	return bpf_map_lookup_elem(&backends, &slot);
}

/* The task of this node with that address, or nothing. `slot` is its backend entry. */
static __always_inline struct backend *local_task(__be32 addr, __u32 *slot)
{
	struct local_key key = { .addr = addr };
	__u32 *found = bpf_map_lookup_elem(&locals, &key);

	if (!found)
		return NULL;
	*slot = *found;
	return backend_at(*slot);
}

static __always_inline bool is_served(__be32 addr, __be16 port, __u8 proto)
{
	struct local_key key = { .addr = addr, .port = port, .proto = proto };

	return bpf_map_lookup_elem(&locals, &key) != NULL;
}

/* The finalizer of MurmurHash3. Every node must come to the same number. */
static __always_inline __u32 mix(__u32 h)
{
	h ^= h >> 16;
	h *= 0x85ebca6b;
	h ^= h >> 13;
	h *= 0xc2b2ae35;
	return h ^ h >> 16;
}

static __always_inline __u32 client_hash(__be32 addr, __be16 port, __u8 proto, __be16 published)
{
	return mix(mix(addr ^ 0x736b6570) + mix((__u32)port << 16 | published) + proto);
}

enum { PICK_NONE = -1, PICK_NOT_OURS = -2 };

/*
 * The backend entry for a new flow of this client; `tries` that went unanswered lead to other ones. PICK_NOT_OURS when the port is not
 * published, or in host mode and the address that was asked is another node's.
 */
__verified_once int pick(struct flow_key *client, __be16 published, __u32 tries, __u32 asked)
{
	struct frontend_key key = { .port = published };
	struct frontend *frontend;
	__u32 zero = 0, index;
	void *inner;

	if (!client)
		return PICK_NOT_OURS;
	key.proto = client->proto;
	inner = bpf_map_lookup_elem(&frontends, &key);
	if (!inner)
		return PICK_NOT_OURS;
	frontend = bpf_map_lookup_elem(inner, &zero);
	if (!frontend || (frontend->flags & FRONTEND_HOST && !(asked & ADDRESS_OWN)))
		return PICK_NOT_OURS;
	if (!frontend->count)
		return PICK_NONE;
	index = client_hash(client->saddr, client->sport, client->proto, published) + tries * 0x9e3779b9;
	index %= MAGLEV_SLOTS;
	/* The verifier does not follow the remainder; the compiler, who does, must not remove the check. */
	asm volatile("" : "+r"(index));
	if (index >= MAGLEV_SLOTS)
		return PICK_NONE;
	return frontend->slots[index];
}
