#include "storage/crypto.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <algorithm>
#include <memory>

#include "base/check.h"

namespace mneme {
namespace {

struct FreeCipher {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, FreeCipher>;

struct FreeKdf {
  void operator()(EVP_KDF* kdf) const { EVP_KDF_free(kdf); }
  void operator()(EVP_KDF_CTX* context) const { EVP_KDF_CTX_free(context); }
};

unsigned char* Bytes(char* bytes) { return reinterpret_cast<unsigned char*>(bytes); }
const unsigned char* Bytes(const char* bytes) {
  return reinterpret_cast<const unsigned char*>(bytes);
}

// OpenSSL counts in int, and records may be longer: they pass in pieces. `update` is
// EVP_EncryptUpdate or EVP_DecryptUpdate; a null `out` takes bytes that are bound and not sealed.
constexpr size_t kPieceBytes = size_t{1} << 20;

template <typename Update>
void UpdateInPieces(Update update, EVP_CIPHER_CTX* context, absl::string_view in,
                    unsigned char* out) {
  for (size_t done = 0; done < in.size(); done += kPieceBytes) {
    const absl::string_view piece = in.substr(done, kPieceBytes);
    int count = 0;
    MNEME_CHECK(update(context, out == nullptr ? nullptr : out + done, &count, Bytes(piece.data()),
                       static_cast<int>(piece.size())) == 1);
  }
}

OSSL_PARAM OctetParam(const char* name, absl::string_view value) {
  return OSSL_PARAM_construct_octet_string(name, const_cast<char*>(value.data()), value.size());
}

void FillRandom(char* bytes, size_t count) {
  MNEME_CHECK(RAND_bytes(Bytes(bytes), static_cast<int>(count)) == 1);
}

}  // namespace

SecretKey SecretKey::Random() {
  SecretKey key;
  FillRandom(key.bytes_.data(), kBytes);
  return key;
}

SecretKey SecretKey::FromBytes(absl::string_view bytes) {
  MNEME_CHECK(bytes.size() >= kBytes);
  SecretKey key;
  std::copy_n(bytes.begin(), kBytes, key.bytes_.begin());
  return key;
}

SecretKey SecretKey::Derive(absl::string_view salt, absl::string_view purpose) const {
  const std::unique_ptr<EVP_KDF, FreeKdf> kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr));
  MNEME_CHECK(kdf != nullptr);
  const std::unique_ptr<EVP_KDF_CTX, FreeKdf> context(EVP_KDF_CTX_new(kdf.get()));
  char digest[] = "SHA256";
  const OSSL_PARAM params[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      OctetParam(OSSL_KDF_PARAM_KEY, bytes()), OctetParam(OSSL_KDF_PARAM_SALT, salt),
      OctetParam(OSSL_KDF_PARAM_INFO, purpose), OSSL_PARAM_construct_end()};
  SecretKey derived;
  MNEME_CHECK(EVP_KDF_derive(context.get(), Bytes(derived.bytes_.data()), kBytes, params) == 1);
  return derived;
}

SecretKey::~SecretKey() { OPENSSL_cleanse(bytes_.data(), bytes_.size()); }

Nonce RandomNonce() {
  Nonce nonce;
  FillRandom(nonce.data(), nonce.size());
  return nonce;
}

void Seal(const SecretKey& key, const Nonce& nonce, absl::string_view bound,
          absl::string_view plaintext, std::string* sealed) {
  const size_t begin = sealed->size();
  sealed->resize(begin + plaintext.size() + kTagBytes);
  unsigned char* out = Bytes(sealed->data() + begin);
  const CipherContext context(EVP_CIPHER_CTX_new());
  int count = 0;
  MNEME_CHECK(EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr,
                                 Bytes(key.bytes().data()), Bytes(nonce.data())) == 1);
  UpdateInPieces(EVP_EncryptUpdate, context.get(), bound, nullptr);
  UpdateInPieces(EVP_EncryptUpdate, context.get(), plaintext, out);
  MNEME_CHECK(EVP_EncryptFinal_ex(context.get(), out + plaintext.size(), &count) == 1);
  MNEME_CHECK(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes,
                                  out + plaintext.size()) == 1);
}

bool Unseal(const SecretKey& key, const Nonce& nonce, absl::string_view bound,
            absl::string_view sealed, char* plaintext) {
  if (sealed.size() < kTagBytes) return false;
  const absl::string_view text = sealed.substr(0, sealed.size() - kTagBytes);
  std::string tag(sealed.substr(text.size()));
  const CipherContext context(EVP_CIPHER_CTX_new());
  int count = 0;
  MNEME_CHECK(EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr,
                                 Bytes(key.bytes().data()), Bytes(nonce.data())) == 1);
  UpdateInPieces(EVP_DecryptUpdate, context.get(), bound, nullptr);
  UpdateInPieces(EVP_DecryptUpdate, context.get(), text, Bytes(plaintext));
  MNEME_CHECK(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1);
  unsigned char none[1];
  if (EVP_DecryptFinal_ex(context.get(), none, &count) == 1) return true;
  OPENSSL_cleanse(plaintext, text.size());
  return false;
}

std::string Sha256(absl::string_view bytes) {
  std::string digest(32, '\0');
  MNEME_CHECK(EVP_Digest(bytes.data(), bytes.size(), Bytes(digest.data()), nullptr, EVP_sha256(),
                         nullptr) == 1);
  return digest;
}

std::string RandomBytes(size_t count) {
  std::string bytes(count, '\0');
  FillRandom(bytes.data(), count);
  return bytes;
}

void Wipe(std::string* secret) {
  OPENSSL_cleanse(secret->data(), secret->size());
  secret->clear();
}

}  // namespace mneme
