/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What the programs need of the kernel's interface, written down here so that building them needs no kernel headers. Numbers and
 * layouts are those of the kernel's stable user-space interface.
 */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
/* A global function: the verifier looks at it once by itself, not again for every way to every call; so it must check its pointers. */
#define __verified_once __attribute__((noinline))
#define likely(x) __builtin_expect(!!(x), 1)
#define barrier() asm volatile("" ::: "memory")
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Fields of a map's definition in BTF. */
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name

/* All targets are little endian. */
#define bpf_htons(x) ((__be16)__builtin_bswap16(x))
#define bpf_ntohs(x) ((__u16)__builtin_bswap16(x))
#define bpf_htonl(x) ((__be32)__builtin_bswap32(x))
#define bpf_ntohl(x) ((__u32)__builtin_bswap32(x))

enum {
	MAP_TYPE_HASH = 1,
	MAP_TYPE_ARRAY = 2,
	MAP_TYPE_PERCPU_ARRAY = 6,
	MAP_TYPE_LRU_HASH = 9,
	MAP_TYPE_LPM_TRIE = 11,
};

enum { PIN_BY_NAME = 1 };
enum { UPDATE_ANY = 0, UPDATE_NOEXIST = 1 };
enum { MAP_NO_PREALLOC = 1 };

/* Verdicts. With TCX, UNSPEC lets the next program decide; with clsact, OK ends the classification. */
enum { VERDICT_NEXT = -1, VERDICT_OK = 0, VERDICT_DROP = 2 };

/* Flags of helpers. */
enum {
	F_INGRESS = 1 << 0,
	F_RECOMPUTE_CSUM = 1 << 0,
	F_PSEUDO_HDR = 1 << 4,
	F_MARK_MANGLED_0 = 1 << 5,
	F_ZERO_CSUM_TX = 1 << 1,
	F_TUNINFO_IPV6 = 1 << 0,
};
enum { ADJ_ROOM_MAC = 1 };
/* What room in a packet is for: then the kernel can cut up what is behind it, in segments as they are. */
enum {
	F_ROOM_FIXED_SEGMENTS = 1 << 0,
	F_ROOM_IPV4 = 1 << 1,
	F_ROOM_UDP = 1 << 4,
	F_ROOM_ETHERNET = 1 << 6,
	/* And when it is taken away: sums that a device has made stay, and what is behind is IPv6 although what was before was IPv4. */
	F_ROOM_KEEP_SUM = 1 << 5,
	F_ROOM_WITHIN_IPV6 = 1 << 8,
};
/* One header less that a device's sums are about. */
enum { CSUM_LEVEL_DOWN = 2 };
#define F_ROOM_INNER_HEADER(bytes) ((__u64)(bytes) << 56)
enum { PACKET_HOST = 0 };

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
	__u8 tstamp_type;
	__u8 pad[3];
	__u64 hwtstamp;
};

/* IPv4 addresses in it are the first word, in host byte order. Kernels before 6.0 know it without the last member. */
struct tunnel_key {
	__u32 tunnel_id;
	__u32 remote[4];
	__u8 tos;
	__u8 ttl;
	__u16 ext;
	__u32 label;
	__u32 local[4];
};
#define TUNNEL_KEY_OLD __builtin_offsetof(struct tunnel_key, local)

struct ethhdr {
	__u8 dst[6];
	__u8 src[6];
	__be16 proto;
};

struct iphdr {
	__u8 version_ihl;
	__u8 tos;
	__be16 total;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 proto;
	__u16 check;
	__be32 saddr;
	__be32 daddr;
};

struct ipv6hdr {
	__u8 version_class;
	__u8 class_label[3];
	__be16 payload;
	__u8 next;
	__u8 hops;
	__u32 saddr[4];
	__u32 daddr[4];
};

/* RFC 8200: what all extension headers begin with, and the fragment header. */
struct extension {
	__u8 next;
	__u8 length;	/* in units of 8 bytes, the first not counted */
};
struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

struct tcphdr {
	__be16 sport;
	__be16 dport;
	__be32 seq;
	__be32 ack;
	__u8 offset;
	__u8 flags;
	__be16 window;
	__u16 check;
	__be16 urgent;
};

struct udphdr {
	__be16 sport;
	__be16 dport;
	__be16 len;
	__u16 check;
};

struct icmphdr {
	__u8 type;
	__u8 code;
	__u16 check;
	__be32 rest;
};

/* RFC 7348. */
#define VXLAN_HAS_VNI 0x08000000
struct vxlanhdr {
	__be32 flags;
	__be32 vni;	/* the upper three bytes */
};

/* RFC 9260: the common header and the beginning of the first chunk. */
struct sctphdr {
	__be16 sport;
	__be16 dport;
	__be32 tag;
	__u32 check;
	__u8 chunk;
};

enum { ETHERTYPE_IPV4 = 0x0800, ETHERTYPE_IPV6 = 0x86dd };
enum { PROTO_ICMP = 1, PROTO_TCP = 6, PROTO_UDP = 17, PROTO_ICMPV6 = 58, PROTO_SCTP = 132 };
enum { NEXT_HOP_BY_HOP = 0, NEXT_ROUTING = 43, NEXT_FRAGMENT = 44, NEXT_DESTINATION = 60 };
enum { SCTP_INIT = 1, SCTP_INIT_ACK = 2, SCTP_ABORT = 6, SCTP_SHUTDOWN = 7, SCTP_SHUTDOWN_ACK = 8 };
enum { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_RST = 0x04, TCP_ACK = 0x10 };
enum { FRAGMENT_OFFSET = 0x1fff, FRAGMENT_MORE = 0x2000, FRAGMENT_NEVER = 0x4000 };
enum { ICMP_ECHO_REPLY = 0, ICMP_UNREACHABLE = 3, ICMP_ECHO = 8, ICMP_TIME_EXCEEDED = 11, ICMP_BAD_PARAMETER = 12 };
enum {
	ICMP_NET_UNREACHABLE = 0,
	ICMP_HOST_UNREACHABLE = 1,
	ICMP_PROTOCOL_UNREACHABLE = 2,
	ICMP_PORT_UNREACHABLE = 3,
	ICMP_FRAGMENTATION_NEEDED = 4,
	ICMP_PROHIBITED = 13,
};
enum { ICMPV6_UNREACHABLE = 1, ICMPV6_TOO_BIG = 2, ICMPV6_TIME_EXCEEDED = 3, ICMPV6_BAD_PARAMETER = 4 };
enum { ICMPV6_ECHO = 128, ICMPV6_ECHO_REPLY = 129 };
enum { ICMPV6_NO_ROUTE = 0, ICMPV6_PROHIBITED = 1, ICMPV6_ADDRESS_UNREACHABLE = 3, ICMPV6_PORT_UNREACHABLE = 4 };

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u32 (*bpf_get_prandom_u32)(void) = (void *)7;
static long (*bpf_skb_store_bytes)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 len, __u64 flags) = (void *)9;
static long (*bpf_l4_csum_replace)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags) = (void *)11;
static long (*bpf_clone_redirect)(struct __sk_buff *skb, __u32 ifindex, __u64 flags) = (void *)13;
static long (*bpf_skb_get_tunnel_key)(struct __sk_buff *skb, struct tunnel_key *key, __u32 size, __u64 flags) = (void *)20;
static long (*bpf_skb_set_tunnel_key)(struct __sk_buff *skb, struct tunnel_key *key, __u32 size, __u64 flags) = (void *)21;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)26;
static __s64 (*bpf_csum_diff)(const void *from, __u32 from_size, const void *to, __u32 to_size, __u32 seed) = (void *)28;
static long (*bpf_skb_change_type)(struct __sk_buff *skb, __u32 type) = (void *)32;
static __u32 (*bpf_get_hash_recalc)(struct __sk_buff *skb) = (void *)34;
static long (*bpf_skb_change_tail)(struct __sk_buff *skb, __u32 len, __u64 flags) = (void *)38;
static long (*bpf_skb_pull_data)(struct __sk_buff *skb, __u32 len) = (void *)39;
static __s64 (*bpf_csum_update)(struct __sk_buff *skb, __u32 csum) = (void *)40;
static long (*bpf_skb_change_head)(struct __sk_buff *skb, __u32 len, __u64 flags) = (void *)43;
static long (*bpf_skb_adjust_room)(struct __sk_buff *skb, __s32 len_diff, __u32 mode, __u64 flags) = (void *)50;
static long (*bpf_sk_release)(void *sock) = (void *)86;
static void *(*bpf_skc_lookup_tcp)(void *ctx, void *tuple, __u32 size, __u64 netns, __u64 flags) = (void *)99;
static long (*bpf_csum_level)(struct __sk_buff *skb, __u64 change) = (void *)135;
static long (*bpf_redirect_neigh)(__u32 ifindex, void *params, int plen, __u64 flags) = (void *)152;
static long (*bpf_redirect_peer)(__u32 ifindex, __u64 flags) = (void *)155;
static __u64 (*bpf_ktime_get_coarse_ns)(void) = (void *)160;
