#include "transport/kv/page_authenticator.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <string>

#include "base/check.h"
#include "base/sha256.h"
#include "transport/little_endian.h"

namespace runahead {

struct PageAuthenticator::Cipher {
  Cipher() : context(EVP_CIPHER_CTX_new()) {}
  ~Cipher() { EVP_CIPHER_CTX_free(context); }
  EVP_CIPHER_CTX* context;
};

// Not the token itself: a secret has one use, and the token's is to open the stream.
PageAuthenticator::PageAuthenticator(StreamToken token) : cipher_(std::make_unique<Cipher>()) {
  std::array<std::byte, sizeof(StreamToken)> secret;
  store_token(secret.data(), token);
  std::string text = "runahead page authentication";
  text.append(reinterpret_cast<const char*>(secret.data()), secret.size());
  const Sha256 key = sha256(text);
  RUNAHEAD_CHECK(EVP_EncryptInit_ex(cipher_->context, EVP_aes_128_gcm(), nullptr,
                                    reinterpret_cast<const unsigned char*>(key.data()), nullptr) == 1,
                 "this OpenSSL has no AES-128-GCM");
}

PageAuthenticator::~PageAuthenticator() = default;

PageMac PageAuthenticator::of(KvPageKey key, std::span<const std::byte> page) {
  std::array<std::byte, 12> nonce{};
  store_le<uint32_t>(nonce.data(), static_cast<uint32_t>(key.layer));
  store_le<uint32_t>(&nonce[4], static_cast<uint32_t>(key.page));
  PageMac mac;
  int length = 0;
  unsigned char none = 0;
  const bool made =
      EVP_EncryptInit_ex(cipher_->context, nullptr, nullptr, nullptr,
                         reinterpret_cast<const unsigned char*>(nonce.data())) == 1 &&
      EVP_EncryptUpdate(cipher_->context, nullptr, &length, reinterpret_cast<const unsigned char*>(page.data()),
                        static_cast<int>(page.size())) == 1 &&
      EVP_EncryptFinal_ex(cipher_->context, &none, &length) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher_->context, EVP_CTRL_AEAD_GET_TAG, static_cast<int>(mac.size()), mac.data()) == 1;
  RUNAHEAD_CHECK(made, "OpenSSL makes no code of a page");
  return mac;
}

bool PageAuthenticator::matches(const KvPageHeader& header, std::span<const std::byte> page) {
  const PageMac mac = of(header.key, page);
  return CRYPTO_memcmp(mac.data(), header.mac.data(), mac.size()) == 0;
}

}  // namespace runahead
