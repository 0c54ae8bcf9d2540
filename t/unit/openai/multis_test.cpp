// Which multi a call goes to, by what is known of its host.

#include "openai/multis.hpp"

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <csignal>
#include <set>
#include <utility>
#include <vector>

#include "openai/transfers_fixture.hpp"

namespace chatbot {
namespace {

// Transfers are added, but none is started.
class MultisTest : public testing::Test {
protected:
    ~MultisTest()
    {
        while (!added_.empty()) {
            remove(0);
        }
    }

    void use(std::size_t max_connections)
    {
        multis_ = std::make_unique<Multis>(
            epoll_, max_connections, [] {}, [](CURL*, CURLcode) {});
    }

    // Adds so many; in how many multis they are, or where there was no room.
    std::string add(const Origin& origin, std::size_t count)
    {
        std::set<Multi*> used;
        for (std::size_t i = 0; i < count; i++) {
            Multi* multi = multis_->choose(origin);
            if (!multi) {
                return "full at " + std::to_string(i);
            }
            Easy easy(curl_easy_init());
            multi->add(easy.get());
            used.insert(multi);
            added_.emplace_back(multi, std::move(easy));
        }
        return std::to_string(used.size()) + " multis";
    }

    void remove(std::size_t index)
    {
        const auto at = added_.begin() + static_cast<std::ptrdiff_t>(index);
        at->first->remove(at->second.get());
        added_.erase(at);
    }

    Multi* multi_of(std::size_t index) const { return added_[index].first; }

    Epoll epoll_;
    std::unique_ptr<Multis> multis_;
    std::vector<std::pair<Multi*, Easy>> added_;
    const Origin http_ = read_origin("http://one.test/v1");
    const Origin https_ = read_origin("https://one.test/v1");
};

TEST_F(MultisTest, ManyCallsByHttp1AreSpread)
{
    use(10000);
    const auto max = Multis::max_transfers;
    EXPECT_EQ(add(http_, max), "1 multis");
    EXPECT_EQ(add(http_, 1), "1 multis");
    EXPECT_NE(multi_of(0), multi_of(max));
    EXPECT_EQ(add(http_, 2 * max), "3 multis");
    EXPECT_EQ(multis_->transfers(), 3 * max + 1);
}

TEST_F(MultisTest, RoomInTheFirstIsUsedAgain)
{
    use(10000);
    add(http_, Multis::max_transfers + 1);
    Multi* const first = multi_of(0);
    remove(0);
    add(http_, 1);
    EXPECT_EQ(added_.back().first, first);
}

TEST_F(MultisTest, HostsByHttp1ShareTheMultisAndTheirLimit)
{
    use(10);
    EXPECT_EQ(add(http_, 6), "1 multis");
    EXPECT_EQ(add(read_origin("http://two.test:8000"), 6), "full at 4");
    EXPECT_EQ(multi_of(0), multi_of(9));
    remove(3);
    EXPECT_EQ(add(http_, 2), "full at 1");
}

TEST_F(MultisTest, CallsByHttp2ShareOneMultiWhateverTheLimit)
{
    use(10);
    EXPECT_EQ(multis_->http2_multi(https_), nullptr);
    EXPECT_EQ(add(https_, 2 * Multis::max_transfers), "1 multis");
    EXPECT_EQ(multis_->http2_multi(https_), multi_of(0));
    EXPECT_EQ(add(http_, 10), "1 multis") << "they do not count as HTTP/1.1";
}

TEST_F(MultisTest, AnotherHostPortOrProxyByHttp2HasItsOwn)
{
    use(10);
    EXPECT_EQ(add(https_, 1), "1 multis");
    add(read_origin("https://one.test:8443/v1"), 1);
    add(read_origin("https://two.test/v1"), 1);
    add(read_origin("https://one.test/other"), 1);
    add(read_origin("https://one.test/v1", "http://proxy.test"), 1);
    EXPECT_NE(multi_of(0), multi_of(1));
    EXPECT_NE(multi_of(0), multi_of(2));
    EXPECT_NE(multi_of(1), multi_of(2));
    EXPECT_EQ(multi_of(0), multi_of(3));
    EXPECT_NE(multi_of(0), multi_of(4)) << "it does not know the other's state";
}

TEST_F(MultisTest, ConnectionsThatMayBeDeadGetNoMoreCalls)
{
    use(10);
    add(https_, 2);
    Multi* const old = multi_of(0);
    multis_->renew(https_, old);
    EXPECT_EQ(multis_->http2_multi(https_), nullptr);
    add(https_, 1);
    Multi* const next = multi_of(2);
    EXPECT_NE(next, old);

    multis_->renew(https_, old);
    EXPECT_EQ(multis_->http2_multi(https_), next) << "renewed already";

    multis_->on_time(Clock::now());
    EXPECT_EQ(multis_->transfers(), 3u) << "the old one has calls";
    remove(0);
    remove(0);
    multis_->on_time(Clock::now());
    EXPECT_EQ(multis_->transfers(), 1u);
    EXPECT_EQ(multi_of(0), next);
}

TEST_F(MultisTest, AHostThatIsKnownToSpeakHttp1GoesWithTheOthers)
{
    use(10);
    add(http_, 1);
    auto known = https_;
    known.http1 = true;
    EXPECT_EQ(add(known, 10), "full at 9");
    EXPECT_EQ(multi_of(0), multi_of(9));
}

// A certificate that nobody has signed, for a minute.
std::pair<X509*, EVP_PKEY*> make_certificate()
{
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 600);
    X509_set_pubkey(certificate, key);
    X509_sign(certificate, key, EVP_sha256());
    return {certificate, key};
}

// An upstream behind TLS that chooses HTTP/1.1: it begins to answer each
// request after so long, and ends the answers once so many are there.
class TlsUpstream {
public:
    explicit TlsUpstream(int count, int delay_ms = 0)
        : count_(count),
          delay_ms_(delay_ms)
    {
        std::signal(SIGPIPE, SIG_IGN);  // libssl writes with write(2)
        auto [certificate, key] = make_certificate();
        SSL_CTX_use_certificate(settings_.get(), certificate);
        SSL_CTX_use_PrivateKey(settings_.get(), key);
        X509_free(certificate);
        EVP_PKEY_free(key);
        server_ = std::make_unique<FakeServer>(
            [this](Peer& peer, int) { serve(peer); });
    }

    int port() const { return server_->port(); }
    int connections() const { return server_->connections(); }

private:
    void serve(Peer& peer)
    {
        const std::unique_ptr<SSL, decltype(&SSL_free)> tls(
            SSL_new(settings_.get()), SSL_free);
        SSL_set_fd(tls.get(), peer.fd());
        char request[16384];
        if (SSL_accept(tls.get()) != 1 ||
            SSL_read(tls.get(), request, sizeof(request)) <= 0) {
            return;
        }

        if (peer.left(delay_ms_)) {
            return;
        }
        write(tls.get(), stream_head + delta("x"));
        waiting_++;
        while (waiting_ < count_ && !peer.left(5)) {
        }
        write(tls.get(), stream_end);
        SSL_shutdown(tls.get());
    }

    static void write(SSL* tls, const std::string& bytes)
    {
        SSL_write(tls, bytes.data(), static_cast<int>(bytes.size()));
    }

    const int count_;
    const int delay_ms_;
    std::atomic<int> waiting_ = 0;
    const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> settings_{
        SSL_CTX_new(TLS_server_method()), SSL_CTX_free};
    std::unique_ptr<FakeServer> server_;
};

// Calls above the few connections that HTTP/2 needs would wait for ever; until
// it turns out that they may have their own, the timeout for connecting does
// not count.
TEST_F(TransfersTest, AnHttpsServerWithoutHttp2GetsAConnectionForEachCall)
{
    constexpr int count = Multis::http2_connections + 20;
    TlsUpstream upstream(count, 1700);
    settings_.connect_timeout_ms = 1500;
    settings_.retries = 0;
    settings_.url = "https://127.0.0.1:" + std::to_string(upstream.port());
    settings_.ssl_verify = false;
    settings_.stream = true;
    for (int i = 0; i < count; i++) {
        begin("hi");
    }
    finish();

    EXPECT_GE(upstream.connections(), count);
    EXPECT_EQ(seen_, count);
    for (const auto& event : events_) {
        EXPECT_EQ(describe(event), "=x");
        EXPECT_EQ(event.call.attempts, 1) << "a call that moves counts once";
    }
}

}  // namespace
}  // namespace chatbot
