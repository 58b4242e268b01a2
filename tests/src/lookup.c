/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the resolver of musl, which Alpine's images have, makes of a name: `lookup NAME [4|6]` prints each address, or what went wrong. */
#include <netdb.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	int family = argc > 2 ? (*argv[2] == '6' ? AF_INET6 : AF_INET) : AF_UNSPEC;
	struct addrinfo hints = { .ai_family = family, .ai_socktype = SOCK_STREAM }, *found, *one;
	char text[64];
	int failed = argc > 1 ? getaddrinfo(argv[1], NULL, &hints, &found) : EAI_NONAME;

	if (failed) {
		puts(gai_strerror(failed));
		return 1;
	}
	for (one = found; one; one = one->ai_next)
		if (getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST) == 0)
			puts(text);
	return 0;
}
