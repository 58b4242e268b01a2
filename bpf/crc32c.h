/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The checksum of SCTP (RFC 9260, appendix A) after a change of the ports. A CRC is linear: the checksums of two packets of one length
 * differ by the CRC of their difference. That of four bytes at the beginning and zeros behind is their product with a power of x, and
 * powers are made by squaring; so the rest of the packet need not be read.
 */
#pragma once

#include "kernel.h"

/* Castagnoli's polynomial, its lowest power in the highest bit, as are all here. */
#define CRC32C_POLYNOMIAL 0x82f63b78

static __always_inline __u32 crc32c_product(__u32 a, __u32 b)
{
	__u32 product = 0;

	for (int i = 0; i < 32; i++) {
		product ^= -(a >> 31) & b;
		a <<= 1;
		b = b >> 1 ^ (-(b & 1) & CRC32C_POLYNOMIAL);
	}
	return product;
}

/* x to the power of 8 * `bytes`. */
static __always_inline __u32 crc32c_power(__u32 bytes)
{
	__u32 power = 0x80000000, square = 0x00800000;

	for (int i = 0; i < 16; i++) {
		if (bytes & 1)
			power = crc32c_product(square, power);
		square = crc32c_product(square, square);
		bytes >>= 1;
	}
	return power;
}

/* Patches the checksum of a packet of `length` bytes at `l4` whose ports change by `difference`. */
__verified_once int patch_crc32c(struct __sk_buff *skb, __u32 l4, __u32 length, __u32 difference)
{
	__u32 at = l4 + __builtin_offsetof(struct sctphdr, check), check;

	if (bpf_skb_load_bytes(skb, at, &check, sizeof(check)))
		return -1;
	/* A device fills it in later. */
	if (!check)
		return 0;
	check ^= crc32c_product(crc32c_power(length), difference);
	return bpf_skb_store_bytes(skb, at, &check, sizeof(check), 0);
}
