/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Fragments. The first one of a packet has the ports and leaves them for the others. Those of clients that come before it wait in a map;
 * it sends them in again through its own device, where they now find what they need.
 */
#pragma once

#include "parse.h"

static __always_inline void fragment_key(const struct packet *packet, __u8 path, struct fragment_key *key)
{
	key->saddr = packet->key.saddr;
	key->daddr = packet->key.daddr;
	key->id = packet->id;
	key->proto = packet->key.proto;
	key->path = path;
	key->pad = 0;
}

/* Leaves the ports of a first fragment for the others. Returns how many of these wait. */
__verified_once int remember_fragment(const struct packet *packet, __u32 path)
{
	struct fragmented fragmented = { .known = 1 }, *before;
	struct fragment_key key;
	int waiting = 0;

	if (!packet)
		return 0;
	fragment_key(packet, path, &key);
	before = bpf_map_lookup_elem(&fragments, &key);
	if (before && !before->known)
		waiting = before->held;
	fragmented.ports.sport = packet->key.sport;
	fragmented.ports.dport = packet->key.dport;
	bpf_map_update_elem(&fragments, &key, &fragmented, UPDATE_ANY);
	return waiting;
}

/* Fills in the ports of a later fragment. */
__verified_once int recall_fragment(struct packet *packet, __u32 path)
{
	struct fragment_key key;
	struct fragmented *found;

	if (!packet)
		return 0;
	fragment_key(packet, path, &key);
	found = bpf_map_lookup_elem(&fragments, &key);
	if (!found || !found->known)
		return 0;
	packet->key.sport = found->ports.sport;
	packet->key.dport = found->ports.dport;
	return 1;
}

static __always_inline struct frame *scratch_frame(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

/* Whether a frame of this size can be moved. Older verifiers see a limit only where it stands alone. */
static __always_inline bool is_movable(__u32 *size)
{
	asm volatile("" : "+r"(*size));
	if (*size > HELD_BYTES)
		return false;
	asm volatile("" : "+r"(*size));
	return *size >= sizeof(struct ethhdr);
}

/* Copies the whole frame out. */
static __always_inline bool take_frame(struct __sk_buff *skb, struct frame *frame)
{
	__u32 size = skb->len;

	if (!is_movable(&size))
		return false;
	frame->size = size;
	return bpf_skb_load_bytes(skb, 0, frame->bytes, size) == 0;
}

/* Makes the packet this frame. */
static __always_inline bool put_frame(struct __sk_buff *skb, const struct frame *frame)
{
	__u32 size = frame->size;

	if (!is_movable(&size))
		return false;
	return bpf_skb_change_tail(skb, size, 0) == 0 && bpf_skb_store_bytes(skb, 0, frame->bytes, size, F_RECOMPUTE_CSUM) == 0;
}

/* Lets a later fragment wait for the first one. 0 when it cannot. */
__verified_once int hold_fragment(struct __sk_buff *skb, const struct packet *packet, __u32 path)
{
	struct fragmented fresh = {}, *fragmented;
	struct frame *frame = scratch_frame();
	struct held_key key = {};

	if (!packet || !frame || !take_frame(skb, frame))
		return 0;
	fragment_key(packet, path, &key.packet);
	fragmented = bpf_map_lookup_elem(&fragments, &key.packet);
	if (fragmented) {
		key.index = fragmented->held;
		if (fragmented->known || key.index >= HELD_MOST)
			return 0;
	}
	if (bpf_map_update_elem(&held, &key, frame, UPDATE_ANY))
		return 0;
	fresh.held = key.index + 1;
	return bpf_map_update_elem(&fragments, &key.packet, &fresh, UPDATE_ANY) == 0;
}

/* Sends those that wait for this first fragment in again, each in the first one's skin. */
__verified_once int release_fragments(struct __sk_buff *skb, const struct packet *packet, __u32 path, __u32 waiting)
{
	struct frame *own = scratch_frame();
	struct held_key key = {};

	if (!packet || !own || !take_frame(skb, own))
		return 0;
	fragment_key(packet, path, &key.packet);
	for (__u32 i = 0; i < HELD_MOST; i++) {
		struct frame *frame;

		if (i >= waiting)
			break;
		key.index = i;
		frame = bpf_map_lookup_elem(&held, &key);
		if (frame && put_frame(skb, frame))
			bpf_clone_redirect(skb, skb->ifindex, F_INGRESS);
		bpf_map_delete_elem(&held, &key);
	}
	return put_frame(skb, own);
}

/* The headers of a packet, with the ports of fragments. PARSED says that it can be looked up; `packet` must be zeroed. */
__verified_once int parse_whole(struct __sk_buff *skb, struct packet *packet, __u32 path)
{
	enum parsed parsed;

	if (!packet)
		return PARSED_BAD;
	parsed = parse(skb, packet, sizeof(struct ethhdr));
	/* What is sent between addresses needs no ports. */
	if (path == PATH_DIRECT)
		return parsed;
	if (unlikely(parsed == PARSED_FRAGMENT) && recall_fragment(packet, path))
		return PARSED;
	if (unlikely(packet->fragment == FRAGMENT_FIRST) && parsed == PARSED)
		remember_fragment(packet, path);
	return parsed;
}
