// PageAuthenticator: that the bytes of a page are the sender's, where the way they take is outside of TLS (UCX). Each page's
// header, which travels within TLS, carries a code of the bytes: GMAC with AES-128 (NIST SP 800-38D), its nonce the page's place,
// which comes once a stream. The key is made of the stream's token, which both ends had within TLS.
//   against  whoever can write to the network or to a lane's memory; a page's checksum keeps out accidents alone. What is
//            written is not hidden: the pages are not encrypted.
//   threads  one at a time. owner: a stream.
#pragma once

#include <memory>
#include <span>

#include "transport/kv/kv_page_header.h"

namespace runahead {

class PageAuthenticator {
 public:
  explicit PageAuthenticator(StreamToken token);
  ~PageAuthenticator();
  PageAuthenticator(const PageAuthenticator&) = delete;
  PageAuthenticator& operator=(const PageAuthenticator&) = delete;

  PageMac of(KvPageKey key, std::span<const std::byte> page);
  // In a time that does not depend on how much of the code is right.
  bool matches(const KvPageHeader& header, std::span<const std::byte> page);

 private:
  struct Cipher;
  std::unique_ptr<Cipher> cipher_;
};

}  // namespace runahead
