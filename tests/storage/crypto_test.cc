#include "storage/crypto.h"

#include <gtest/gtest.h>

#include "absl/strings/escaping.h"

namespace mneme {
namespace {

std::string Sealed(const SecretKey& key, const Nonce& nonce, absl::string_view bound,
                   absl::string_view plaintext) {
  std::string sealed;
  Seal(key, nonce, bound, plaintext, &sealed);
  return sealed;
}

TEST(CryptoTest, SealsLikeTheStandardsTestVector) {
  // AES-256-GCM, test case 14 of McGrew and Viega's specification.
  const SecretKey key = SecretKey::FromBytes(std::string(SecretKey::kBytes, '\0'));
  EXPECT_EQ(absl::BytesToHexString(Sealed(key, Nonce{}, "", std::string(16, '\0'))),
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
}

TEST(CryptoTest, DerivesLikeOpenSslsCommand) {
  // openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt key:kkk… -kdfopt salt:salt
  //             -kdfopt info:a HKDF
  const SecretKey key = SecretKey::FromBytes(std::string(SecretKey::kBytes, 'k'));
  EXPECT_EQ(absl::BytesToHexString(key.Derive("salt", "a").bytes()),
            "d6ddffe57f6fb82284812cc5082f7aca2c54cc28737e729943f0a20da045fb1e");
  EXPECT_NE(key.Derive("salt", "a").bytes(), key.Derive("salt", "b").bytes());
  EXPECT_NE(key.Derive("salt", "a").bytes(), key.Derive("pepper", "a").bytes());
}

TEST(CryptoTest, SealsMoreThanOpenSslTakesAtOnce) {
  const SecretKey key = SecretKey::Random();
  const Nonce nonce = RandomNonce();
  const std::string text = std::string((size_t{3} << 20) + 5, 't'), place(2 << 20, 'p');
  std::string sealed = Sealed(key, nonce, place, text), opened(text.size(), '\0');
  ASSERT_TRUE(Unseal(key, nonce, place, sealed, opened.data()));
  EXPECT_EQ(opened, text);
  sealed[size_t{2} << 20] ^= 1;
  EXPECT_FALSE(Unseal(key, nonce, place, sealed, opened.data()));
}

TEST(CryptoTest, OpensWhatItSealedAndNothingElse) {
  const SecretKey key = SecretKey::Random();
  const Nonce nonce = RandomNonce();
  std::string sealed = Sealed(key, nonce, "place", "text");
  std::string text(4, '\0');
  ASSERT_TRUE(Unseal(key, nonce, "place", sealed, text.data()));
  EXPECT_EQ(text, "text");
  EXPECT_FALSE(Unseal(key, nonce, "other place", sealed, text.data()));
  EXPECT_FALSE(Unseal(SecretKey::Random(), nonce, "place", sealed, text.data()));
  EXPECT_FALSE(Unseal(key, RandomNonce(), "place", sealed, text.data()));
  EXPECT_FALSE(Unseal(key, nonce, "place", sealed.substr(0, 15), text.data()));
  for (char& byte : sealed) {
    byte ^= 1;
    EXPECT_FALSE(Unseal(key, nonce, "place", sealed, text.data()));
    EXPECT_EQ(text, std::string(4, '\0'));
    byte ^= 1;
  }
}

}  // namespace
}  // namespace mneme
