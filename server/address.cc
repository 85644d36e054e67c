#include "server/address.h"

#include "absl/strings/str_cat.h"

namespace mneme {

std::string JoinHostPort(const std::string& host, int port) {
  const bool is_bare_ipv6 = host.find(':') != std::string::npos && host.front() != '[';
  return is_bare_ipv6 ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

}  // namespace mneme
