#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <thread>

#include "fake_server.hpp"
#include "postgres/log_fixture.hpp"

// Servers that are away, silent, busy or read-only.

namespace chatbot {
namespace {

using std::string_view_literals::operator""sv;

TEST_F(LogPostgresTest, MissingRightsAreToldOnceAndWaitedFor)
{
    connect_with("");

    EXPECT_EQ(insert(line("a")), "-");
    EXPECT_EQ(insert(line("a")), "-");
    EXPECT_EQ(notices(),
              "E permission denied for schema " + name_ + " (42501)\n");

    sql("grant create on schema " + name_ + " to " + name_);
    EXPECT_EQ(insert(line("a")), "+");
    EXPECT_EQ(notices(), "N is back\n");
    sql("drop owned by " + name_);
}

TEST_F(LogPostgresTest, TableThatIsNoLogIsLookedAtAnew)
{
    sql("create table " + table() + " (id int)");
    EXPECT_FALSE(log_->prepare());
    EXPECT_NE(notices().find("is not a table for the log"), std::string::npos);

    sql("drop table " + table());
    EXPECT_EQ(insert(line("a")), "+");
    EXPECT_EQ(notices(), "N is back\n");
}

TEST_F(LogPostgresTest, ConnectionThatWasCutIsReplaced)
{
    EXPECT_EQ(insert(line("a")), "+");
    sql("select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where application_name = 'ngx_http_chatbot_module'");

    EXPECT_EQ(insert(line("b")), "+");
    EXPECT_EQ(rows("request_id"), "a b");
    EXPECT_EQ(notices(), "");
}

TEST_F(LogPostgresTest, LockedTableIsWaitedFor)
{
    make_old_table();
    sql("begin; lock table " + table());

    EXPECT_EQ(insert(line("a")), "-");
    EXPECT_NE(notices().find("E canceling statement due to lock timeout"
                             " (55P03)\n"),
              std::string::npos);

    sql("commit");
    EXPECT_EQ(insert(line("a")), "+");
    EXPECT_EQ(notices(), "N is back\n");
}

TEST_F(LogPostgresTest, ReadOnlyServerIsWaitedFor)
{
    EXPECT_EQ(insert(line("a")), "+");
    connect_with("insert, select");
    sql("alter role " + name_ + " set default_transaction_read_only = on");

    EXPECT_EQ(insert(line("b")), "-");
    EXPECT_EQ(insert(line("b")), "-");
    EXPECT_EQ(notices(),
              "E cannot execute INSERT in a read-only transaction (25006)\n");

    sql("alter role " + name_ + " reset default_transaction_read_only");
    EXPECT_EQ(insert(line("b")), "+");
    EXPECT_EQ(notices(), "N is back\n");
}

TEST_F(LogPostgresTest, ServerThatIsNotThereIsToldOnce)
{
    log_ = make("host=/nonexistent user=me password=secret dbname=logs");

    EXPECT_EQ(insert(line("a")), "-");
    EXPECT_EQ(insert(line("a")), "-");

    std::string told = notices();
    EXPECT_EQ(told.substr(0, 2), "E ");
    EXPECT_EQ(told.find('\n'), told.size() - 1);
    EXPECT_EQ(told.find("secret"), std::string::npos);
}

// A server that lets everybody in, and says this to whatever it is asked.
class FakePostgresTest : public LogPostgresTest {
protected:
    std::string insert_told(std::string_view reply)
    {
        FakeServer server([&](Peer& peer, int) {
            peer.receive();
            peer.send("R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"sv);
            peer.receive();
            peer.send(reply);
            peer.left();
        });
        log_ = make("host=127.0.0.1 port=" + std::to_string(server.port()) +
                    " user=me sslmode=disable gssencmode=disable");
        std::string inserted = insert(line("a"));
        return inserted + notices();
    }
};

TEST_F(FakePostgresTest, CopyIsAFailure)
{
    for (auto reply : {"G\0\0\0\x07\0\0\0"sv, "H\0\0\0\x07\0\0\0"sv,
                       "W\0\0\0\x07\0\0\0"sv}) {
        EXPECT_EQ(insert_told(reply), "-E sent an invalid reply\n");
    }
}

TEST_F(FakePostgresTest, ControlCharactersAreNotTold)
{
    EXPECT_EQ(insert_told("E\0\0\0\x1CSFATAL\0C57P03\0Mno\x1b[1m!\0\0"
                          "Z\0\0\0\x05I"sv),
              "-E no [1m! (57P03)\n");
}

// A server that takes connections and never says a word.
TEST_F(LogPostgresTest, StoppingEndsTheWaitForASilentServer)
{
    char dir[] = "/tmp/chatbot-XXXXXX";
    ASSERT_NE(mkdtemp(dir), nullptr);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::string path = std::string(dir) + "/.s.PGSQL.5432";
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);

    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    ASSERT_EQ(
        bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
        0);
    ASSERT_EQ(listen(listener, 1), 0);

    std::thread stopper([&] {
        int peer = accept(listener, nullptr, nullptr);
        stopping_ = true;
        char byte;
        while (recv(peer, &byte, 1, 0) > 0) {  // until it hangs up
        }
        close(peer);
    });

    auto start = std::chrono::steady_clock::now();
    log_ = make(std::string("host=") + dir + " port=5432 user=me dbname=logs");
    EXPECT_EQ(insert(line("a")), "-");
    EXPECT_LT(std::chrono::steady_clock::now() - start,
              std::chrono::seconds(5));
    EXPECT_EQ(notices(), "");

    stopper.join();
    close(listener);
    unlink(path.c_str());
    rmdir(dir);
}

}  // namespace
}  // namespace chatbot
