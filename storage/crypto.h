#ifndef MNEME_STORAGE_CRYPTO_H_
#define MNEME_STORAGE_CRYPTO_H_

// AES-256-GCM, HKDF-SHA256 and random bytes, all OpenSSL's. Any thread.

#include <array>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace mneme {

inline constexpr size_t kNonceBytes = 12;
inline constexpr size_t kTagBytes = 16;

// A 256-bit key; wiped from memory with its owner.
class SecretKey {
 public:
  static constexpr size_t kBytes = 32;

  static SecretKey Random();
  // The first kBytes of `bytes`, which must hold as many.
  static SecretKey FromBytes(absl::string_view bytes);
  // HKDF-SHA256 of this key: independent of it and of what other (salt, purpose) give.
  SecretKey Derive(absl::string_view salt, absl::string_view purpose) const;

  SecretKey(const SecretKey&) = default;
  SecretKey& operator=(const SecretKey&) = default;
  ~SecretKey();

  absl::string_view bytes() const { return {bytes_.data(), bytes_.size()}; }

 private:
  SecretKey() = default;

  std::array<char, kBytes> bytes_;
};

using Nonce = std::array<char, kNonceBytes>;

// A nonce must never be used twice with a key. 96 random bits allow 2³² seals of one key before a
// repetition is as likely as 2⁻³².
Nonce RandomNonce();

// Appends ciphertext and tag, kTagBytes longer than `plaintext`, to `*sealed`. `bound` is
// authenticated with it but not stored.
void Seal(const SecretKey& key, const Nonce& nonce, absl::string_view bound,
          absl::string_view plaintext, std::string* sealed);

// Writes sealed.size() - kTagBytes bytes to `plaintext`. False, with `plaintext` wiped, unless
// `sealed` is what Seal made of the same key, nonce and bound.
bool Unseal(const SecretKey& key, const Nonce& nonce, absl::string_view bound,
            absl::string_view sealed, char* plaintext);

// 32 bytes.
std::string Sha256(absl::string_view bytes);

// `count` bytes from the system's generator for secrets.
std::string RandomBytes(size_t count);

// Overwrites in a way that no compiler leaves out.
void Wipe(std::string* secret);

}  // namespace mneme

#endif  // MNEME_STORAGE_CRYPTO_H_
