/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Fragments: the first one of a packet has the ports and leaves them for the others. */
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

__verified_once int remember_fragment(const struct packet *packet, __u32 path)
{
	struct fragment_key key;
	struct ports ports = {};

	if (!packet)
		return 0;
	fragment_key(packet, path, &key);
	ports.sport = packet->key.sport;
	ports.dport = packet->key.dport;
	return bpf_map_update_elem(&fragments, &key, &ports, UPDATE_ANY) == 0;
}

/* Fills in the ports of a later fragment. */
__verified_once int recall_fragment(struct packet *packet, __u32 path)
{
	struct fragment_key key;
	struct ports *found;

	if (!packet)
		return 0;
	fragment_key(packet, path, &key);
	found = bpf_map_lookup_elem(&fragments, &key);
	if (!found)
		return 0;
	packet->key.sport = found->sport;
	packet->key.dport = found->dport;
	return 1;
}

/* The headers of a packet, with the ports of fragments. PARSED says that it can be looked up; `packet` must be zeroed. */
__verified_once int parse_whole(struct __sk_buff *skb, struct packet *packet, __u32 path)
{
	enum parsed parsed;

	if (!packet)
		return PARSED_BAD;
	parsed = parse(skb, packet);
	if (unlikely(parsed == PARSED_FRAGMENT) && recall_fragment(packet, path))
		return PARSED;
	if (unlikely(packet->fragment == FRAGMENT_FIRST) && parsed == PARSED)
		remember_fragment(packet, path);
	return parsed;
}
