#ifndef MNEME_SERVER_ADDRESS_H_
#define MNEME_SERVER_ADDRESS_H_

#include <string>

namespace mneme {

// HOST:PORT, with an IPv6 address in brackets.
std::string JoinHostPort(const std::string& host, int port);

}  // namespace mneme

#endif  // MNEME_SERVER_ADDRESS_H_
