/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Fragments: the first one of a packet has the ports and leaves them for the others, which must come after it. */
#pragma once

#include "parse.h"

static __always_inline void fragment_key(const struct packet *packet, __u8 path, __be32 origin, struct fragment_key *key)
{
	key->saddr = packet->saddr;
	key->daddr = packet->daddr;
	key->origin = origin;
	key->id = packet->id;
	key->proto = packet->proto;
	key->path = path;
}

__verified_once int remember_fragment(const struct packet *packet, __u32 path, __be32 origin)
{
	struct fragment_key key = {};
	struct ports ports = {};

	if (!packet)
		return 0;
	fragment_key(packet, path, origin, &key);
	ports.sport = packet->sport;
	ports.dport = packet->dport;
	return bpf_map_update_elem(&fragments, &key, &ports, UPDATE_ANY) == 0;
}

/* Fills in the ports of a later fragment. */
__verified_once int recall_fragment(struct packet *packet, __u32 path, __be32 origin)
{
	struct fragment_key key = {};
	struct ports *found;

	if (!packet)
		return 0;
	fragment_key(packet, path, origin, &key);
	found = bpf_map_lookup_elem(&fragments, &key);
	if (!found)
		return 0;
	packet->sport = found->sport;
	packet->dport = found->dport;
	return 1;
}
