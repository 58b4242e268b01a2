/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* From (address, protocol, port) to a backend. */
#pragma once

#include "parse.h"
#include "stats.h"

/* About a second. */
#define TICKS_PER_SECOND 954
/* For how long a backend that left somebody without an answer is passed over, unless it answers somebody else. */
#define SUSPICION_TICKS (10 * TICKS_PER_SECOND)
/* Backends tried until one is found that is not suspected. With half of them gone one flow in 65,000 finds none. */
#define PICK_TRIES 16

/* Never 0, which stands for "not yet". */
static __always_inline __u32 ticks(void)
{
	return (__u32)(bpf_ktime_get_coarse_ns() >> 20) | 1;
}

static __always_inline bool is_published(__u8 proto, __be16 port)
{
	__u32 index = proto == PROTO_TCP ? 0 : proto == PROTO_UDP ? 1 : 2;
	struct port_bits *bits = bpf_map_lookup_elem(&ports, &index);
	__u16 number = bpf_ntohs(port);

	return bits && bits->words[number >> 6] >> (number & 63) & 1;
}

static __always_inline struct address *address_at(const struct addr *addr)
{
	/* Before 6.6 what a global function was given is no key for a map, nor a value: here and below they are copied. */
	struct addr key = *addr;

	return bpf_map_lookup_elem(&addresses, &key);
}

static __always_inline __u32 address_flags(const struct addr *addr)
{
	struct address *found = address_at(addr);

	return found ? found->flags : 0;
}

static __always_inline struct backend *backend_at(__u32 slot)
{
	return bpf_map_lookup_elem(&backends, &slot);
}

/* Begins an IPv6 address as those of the network do; as nobody's, when it has gone meanwhile. */
__verified_once int set_prefix(struct addr *to, __u32 network)
{
	struct addr *prefix = bpf_map_lookup_elem(&prefixes, &network);

	if (!to)
		return 0;
	to->w[0] = prefix ? prefix->w[0] : 0;
	to->w[1] = prefix ? prefix->w[1] : 0;
	to->w[2] = prefix ? prefix->w[2] : 0;
	return 1;
}

/* Whether the address is a task's, in the family of the packet. */
static __always_inline bool is_task_addr(const struct addr *addr, const struct backend *backend, __u8 version)
{
	struct addr own;

	if (unlikely(addr->w[3] != backend->addr))
		return false;
	mesh_addr(&own, backend->addr, version);
	if (unlikely(version == 6 && backend->flags & BACKEND_PREFIX))
		set_prefix(&own, backend->network);
	return same_addr(&own, addr);
}

/*
 * The address of a task that is asked by another address: `asked`, which begins as the task's own when that does not begin as everybody's
 * (`prefixed`), for then it is a service's on the same network.
 */
static __always_inline void asked_task_addr(struct addr *to, __be32 task, bool prefixed, const struct addr *asked, __u8 version)
{
	mesh_addr(to, task, version);
	if (unlikely(version == 6 && prefixed)) {
		to->w[0] = asked->w[0];
		to->w[1] = asked->w[1];
		to->w[2] = asked->w[2];
	}
}

/* The task with that address, or nothing. `slot` is its backend entry. */
static __always_inline struct backend *task_at(__be32 addr, __u32 *slot)
{
	struct local_key key = { .addr = addr };
	__u32 *found = bpf_map_lookup_elem(&locals, &key);

	if (!found)
		return NULL;
	*slot = *found;
	return backend_at(*slot);
}

/* The same if it is of this node. */
static __always_inline struct backend *local_task(__be32 addr, __u32 *slot)
{
	struct backend *backend = task_at(addr, slot);

	return backend && is_zero(&backend->node) ? backend : NULL;
}

/* Whether some task of this node serves on that port. */
static __always_inline bool is_served(__be16 port, __u8 proto)
{
	struct local_key key = { .port = port, .proto = proto };

	return bpf_map_lookup_elem(&locals, &key) != NULL;
}

static __always_inline struct frontend *frontend_of(__u8 proto, __be16 port)
{
	struct frontend_key key = { .port = port, .proto = proto };

	return bpf_map_lookup_elem(&frontends, &key);
}

/* The service that has the address for its own, or nothing. */
static __always_inline struct frontend *vip_of(const struct addr *addr, __u8 version)
{
	__be32 key = addr->w[3];
	struct frontend *vip = bpf_map_lookup_elem(&vips, &key);
	struct addr own;

	if (!vip)
		return NULL;
	mesh_addr(&own, key, version);
	if (unlikely(version == 6 && vip->flags & FRONTEND_PREFIX))
		set_prefix(&own, vip->network);
	return same_addr(&own, addr) ? vip : NULL;
}

/* What is asked, of a packet that may have come from a task of this node or of another. */
static __always_inline struct frontend *asked_frontend(const struct packet *packet, __u32 path)
{
	struct frontend *vip = path == PATH_CLIENT ? NULL : vip_of(&packet->key.daddr, packet->version);

	return vip ? vip : frontend_of(packet->key.proto, packet->key.dport);
}

/* Whether an address is on one of the swarm's own networks. */
static __always_inline bool is_on_overlay(const struct addr *addr)
{
	struct network_key key = { .bits = 32 + 128, .list = LIST_OVERLAYS, .addr = *addr };

	return bpf_map_lookup_elem(&networks, &key) != NULL;
}

static __always_inline bool is_listed(__u32 list, const struct addr *addr)
{
	struct network_key key = { .bits = 32 + 128, .list = list, .addr = *addr };

	return bpf_map_lookup_elem(&networks, &key) != NULL;
}

/* The finalizer of MurmurHash3. Every node, and the daemon (crates/mesh/src/choose.rs), must come to the same number. */
static __always_inline __u32 mix(__u32 h)
{
	h ^= h >> 16;
	h *= 0x85ebca6b;
	h ^= h >> 13;
	h *= 0xc2b2ae35;
	return h ^ h >> 16;
}

static __always_inline __u32 client_hash(const struct flow_key *key, bool affinity)
{
	__u32 h = 0x736b6570;

	for (int i = 0; i < 4; i++)
		h = mix(h ^ key->saddr.w[i]) + i;
	if (!affinity)
		h ^= mix((__u32)key->sport << 16 | key->dport);
	return mix(h + key->proto);
}

static __always_inline bool is_recent(__u32 then, __u32 now)
{
	return then && now - then < SUSPICION_TICKS;
}

/* The node of a backend that is elsewhere. */
static __always_inline struct peer *peer_of(const struct backend *backend)
{
	__u32 index = backend->peer;

	return index ? bpf_map_lookup_elem(&peers, &index) : NULL;
}

/* Whether the backend, or its whole node, has lately left somebody without an answer. */
static __always_inline bool is_suspected(__u32 slot, __u32 now)
{
	struct backend *backend = backend_at(slot);
	__u32 *suspect = bpf_map_lookup_elem(&suspects, &slot);
	struct peer *peer;

	if (!backend || !suspect)
		return false;
	if (is_recent(*suspect, now))
		return true;
	peer = peer_of(backend);
	return peer && is_recent(peer->suspected, now);
}

/* A backend has not answered what was sent at `since`. If nothing was heard of its node either since then, all of the node is suspected. */
static __always_inline void suspect(__u32 slot, __u32 since)
{
	struct backend *backend = backend_at(slot);
	__u32 *suspect = bpf_map_lookup_elem(&suspects, &slot);
	struct peer *peer;
	__u32 heard, now;

	if (!backend || !suspect)
		return;
	peer = peer_of(backend);
	heard = peer ? peer->heard : 0;
	/* Ages are compared, for the count of ticks wraps; what was read before `now` is not younger than it. */
	now = ticks();
	*suspect = now;
	if (peer && (!heard || now - heard >= now - since))
		peer->suspected = now;
}

/* An answer came from a backend. */
static __always_inline void trust(const struct backend *backend, __u32 slot, __u32 now)
{
	__u32 *suspect = bpf_map_lookup_elem(&suspects, &slot);
	struct peer *peer = peer_of(backend);

	if (suspect && *suspect)
		*suspect = 0;
	if (!peer)
		return;
	peer->heard = now;
	if (peer->suspected)
		peer->suspected = 0;
}

enum { PICK_NONE = -1 };

/*
 * What a place of a table says. The kernel may give the memory of an entry that has just been replaced to another table at once; its number
 * tells, and then the table is looked up again.
 */
static __always_inline int slot_at(__u32 number, __u32 index)
{
	for (int i = 0; i < 2; i++) {
		struct table *table = bpf_map_lookup_elem(&tables, &number);
		int slot;

		if (!table || !table->count || index >= MAGLEV_SLOTS)
			return PICK_NONE;
		slot = table->slots[index];
		barrier();
		if (likely(table->number == number))
			return slot;
	}
	return PICK_NONE;
}

static __always_inline bool is_of(__u32 slot, __u32 peer)
{
	struct backend *backend = backend_at(slot);

	return peer && backend && backend->peer == peer;
}

/*
 * The backend entry for a new flow of this client; `tries` that went unanswered lead to other ones, and rather not to the node `silent`,
 * which nobody may suspect yet: others can have heard of it until just before it fell silent.
 */
__verified_once int pick(const struct flow_key *client, const struct frontend *frontend, __u32 tries, __u32 silent)
{
	__u32 number, hash, now = ticks();
	int first = PICK_NONE, near = PICK_NONE;

	if (!client || !frontend)
		return PICK_NONE;
	number = frontend->table;
	hash = client_hash(client, frontend->flags & FRONTEND_AFFINITY);
	if (frontend->idle == IDLE_AT_ONCE)
		hash = bpf_get_prandom_u32();
	for (int i = 0; i < PICK_TRIES; i++) {
		/* Mixed anew each time: a backend's slots lie in steps, and steps might meet them again and again. */
		__u32 index = (tries + i ? mix(hash + tries + i) : hash) % MAGLEV_SLOTS;
		int slot;

		/* The verifier does not follow the remainder; the compiler, who does, must not remove the check. */
		asm volatile("" : "+r"(index));
		slot = slot_at(number, index);
		if (slot < 0)
			break;
		if (i == 0)
			first = slot;
		if (unlikely(is_suspected(slot, now))) {
			if (i == 0)
				count_event(EVENT_SUSPECTED);
			continue;
		}
		if (likely(!is_of(slot, silent)))
			return slot;
		near = slot;
	}
	return near == PICK_NONE ? first : near;
}
