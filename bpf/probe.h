/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Whether one node may answer another's clients depends on the underlay: many a switch or cloud drops packets whose source address is not
 * their sender's. So a node tries: it sends to the other a datagram that claims to come from the other itself. Who gets such a one
 * sends it back through the tunnel to the node that its payload names, and that notes the proof.
 */
#pragma once

#include "deliver.h"

static __always_inline bool is_probe(const struct packet *packet)
{
	return packet->key.proto == PROTO_UDP && packet->key.sport == bpf_htons(PROBE_PORT) &&
	       packet->key.dport == bpf_htons(PROBE_PORT) && same_addr(&packet->key.saddr, &packet->key.daddr);
}

/* Sends a probe back to the member that it names. */
__verified_once int return_probe(struct __sk_buff *skb, const struct packet *packet)
{
	const struct parcel nothing = {};
	struct node *own = own_node();
	struct addr prober;

	if (!packet || !own || !(own->flags & NODE_REPLY_DIRECT) || !same_addr(&packet->key.daddr, &own->underlay) ||
	    bpf_skb_load_bytes(skb, packet->l4 + sizeof(struct udphdr), &prober, sizeof(prober)) ||
	    !(address_flags(&prober) & ADDRESS_TRUSTED))
		return VERDICT_DROP;
	return to_node(skb, &prober, VNI_REPLY, &nothing);
}

/* A probe of ours came back: it was delivered to the node that now sends it. */
__verified_once int note_proof(const struct packet *packet, const struct addr *origin)
{
	__u32 now = ticks();
	struct addr key;

	if (!packet || !origin)
		return VERDICT_DROP;
	key = *origin;
	if (same_addr(&packet->key.saddr, origin) && address_flags(origin) & ADDRESS_TRUSTED)
		bpf_map_update_elem(&proofs, &key, &now, UPDATE_ANY);
	return VERDICT_DROP;
}
