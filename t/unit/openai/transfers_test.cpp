// What is asked of the upstream and what comes back: replies, streams, ends.

#include "openai/transfers.hpp"

#include <thread>

#include "openai/transfers_fixture.hpp"

namespace chatbot {
namespace {

TEST_F(TransfersTest, AsksAsTheApiWants)
{
    answer(200, completion("  Paris. "));
    EXPECT_EQ(ask("capital?"), "=Paris.");

    const std::string request = upstream_->last_request();
    EXPECT_EQ(request.find("POST /v1/chat/completions HTTP/1.1\r\n"), 0u);
    for (auto part :
         {"\r\nAuthorization: Bearer sk-secret\r\n",
          "\r\nContent-Type: application/json\r\n",
          "\r\nAccept: application/json\r\n", "\"m-1\"", "capital?"}) {
        EXPECT_NE(request.find(part), request.npos) << part;
    }
    EXPECT_EQ(request.find("Expect"), request.npos);

    const Answer& answer = events_.back().answer;
    EXPECT_EQ(answer.model, "m-1");
    EXPECT_EQ(answer.created, 7);
    EXPECT_EQ(answer.prompt_tokens, 3);
    EXPECT_EQ(answer.completion_tokens, 2);
    EXPECT_TRUE(answer.complete);
    EXPECT_EQ(events_.back().flight, 1u);
}

TEST_F(TransfersTest, NoKeyNoAuthorization)
{
    settings_.api_key.clear();
    answer(200, completion("x"));
    EXPECT_EQ(ask("hi"), "=x");
    EXPECT_EQ(upstream_->last_request().find("Authorization"),
              std::string::npos);
}

TEST_F(TransfersTest, CreatedIsFilledIn)
{
    answer(200, R"({"choices": [{"message": {"content": "x"}}]})");
    EXPECT_EQ(ask("hi"), "=x");
    EXPECT_NEAR(events_.back().answer.created, std::time(nullptr), 5);
}

TEST_F(TransfersTest, StreamsPieceByPiece)
{
    start([&](Peer& peer, auto&, int) {
        peer.send(stream_head);
        for (int i = 0; i < 3; i++) {
            peer.send(delta("ab"));
            while (seen_ <= i && !peer.left(5)) {
            }
        }
        peer.send(stream_end);
        peer.reset();
    });

    EXPECT_EQ(ask("hi", true), "+ab +ab +ab =ababab");
    EXPECT_NE(upstream_->last_request().find("Accept: text/event-stream"),
              std::string::npos);
}

TEST_F(TransfersTest, ReadsTheReplyAsWhatItIs)
{
    answer(200, completion("x"));
    EXPECT_EQ(ask("hi", true), "=x");

    start([](Peer& peer, auto&, int) {
        peer.send(stream_head + delta("x") + delta("y") + stream_end);
        peer.reset();
    });
    EXPECT_EQ(ask("hi"), "=xy");
}

TEST_F(TransfersTest, BrokenStreamIsNotAskedAgain)
{
    start([&](Peer& peer, auto&, int) {
        peer.send(stream_head + delta("x"));
        peer.reset();
    });
    EXPECT_EQ(plain(ask("hi", true)),
              "+x !502 U: the stream ended before the answer did");
    EXPECT_EQ(upstream_->requests(), 1);
}

TEST_F(TransfersTest, StreamToldToItsEndIsPaidForOnce)
{
    const auto ends = [this](std::string events) {
        start([=](Peer& peer, auto&, int) {
            peer.send(
                "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n"
                "Content-Type: text/event-stream\r\n\r\n" +
                events);
            peer.reset();
        });
        const std::string text = plain(ask("hi"));
        EXPECT_EQ(upstream_->requests(), 1);
        return text;
    };
    const std::string cut_off =
        "data: {\"choices\": [{\"delta\": {}, \"finish_reason\": "
        "\"length\"}]}\n\n";
    const std::string refusal =
        "data: {\"choices\": [{\"delta\": {\"refusal\": \"no\"}}]}\n\n";

    EXPECT_EQ(ends(delta("x") + stream_end), "=x");
    EXPECT_EQ(ends(delta("x") + cut_off), "=x");
    EXPECT_EQ(ends(refusal + stream_end), "=no");
    EXPECT_EQ(ends(cut_off),
              "!502 U: a reply without text, finish_reason \"length\"");

    const std::string one =
        "data: {\"choices\": [{\"delta\": {\"content\": \"a\"}, "
        "\"finish_reason\": \"stop\"}]}";
    EXPECT_EQ(ends(one + "\n\n"), "=a");
    EXPECT_EQ(ends(one + "\n\n" + one + "\n\ndata: [DONE]"), "=aa");
}

// A service that names a finish_reason in each event.
TEST_F(TransfersTest, StreamThatGoesOnBehindItsEndIsNotWhole)
{
    const std::string piece =
        "data: {\"choices\": [{\"delta\": {\"content\": \"a\"}, "
        "\"finish_reason\": \"stop\"}]}";
    for (std::string cut : {"\n\n", "\n", ""}) {
        start([=](Peer& peer, auto&, int n) {
            peer.send(
                "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n"
                "Content-Type: text/event-stream\r\n\r\n" +
                piece + "\n\n" + piece + (n == 1 ? cut : "\n\n" + stream_end));
            peer.reset();
        });
        EXPECT_EQ(plain(ask("hi")), "=aa");
        EXPECT_EQ(upstream_->requests(), 2);
    }
}

TEST_F(TransfersTest, ReplyToldToItsEndIsPaidForOnce)
{
    const auto ends = [this](std::string head, bool stays) {
        start([=](Peer& peer, auto&, int) {
            peer.send("HTTP/1.1 " + head +
                      "\r\n\r\n{\"choices\": [{\"message\": {\"content\": "
                      "\"x\"}}]}");
            if (stays) {
                peer.left();
            }
            peer.reset();
        });
        const std::string text = plain(ask("hi"));
        EXPECT_EQ(upstream_->requests(), 1);
        return text;
    };

    EXPECT_EQ(ends("200 OK\r\nContent-Length: 1000", false), "=x");
    settings_.read_timeout_ms = 300;
    EXPECT_EQ(ends("200 OK", true), "=x");
    settings_.retries = 0;
    EXPECT_EQ(ends("500 X\r\nContent-Length: 1000", false).substr(0, 4),
              "!502");
}

TEST_F(TransfersTest, DoneEndsAnOpenStream)
{
    start([](Peer& peer, auto&, int) {
        peer.send(stream_head + delta("x") + stream_end);
        while (!peer.left(10) && peer.send(": still here\n\n")) {
        }
    });
    EXPECT_EQ(ask("hi", true), "+x =x");
}

TEST_F(TransfersTest, DoneWaitsABitForTheEndOfTheReply)
{
    start([](Peer& peer, auto&, int) {
        const std::string events = delta("x") + stream_end;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: " +
                  std::to_string(events.size() + 1) +
                  "\r\nContent-Type: text/event-stream\r\n\r\n" + events);
        peer.left(100);
        peer.send("\n");
    });
    EXPECT_EQ(ask("hi", true), "+x =x");
    EXPECT_EQ(ask("hi", true), "+x =x");
    EXPECT_EQ(upstream_->connections(), 1);
}

TEST_F(TransfersTest, SilenceEndsTheCallAndIsNotAskedAgain)
{
    settings_.read_timeout_ms = 1000;
    settings_.connect_timeout_ms = settings_.timeout_ms = 30000;
    start([](Peer& peer, auto&, int) { peer.left(); });
    EXPECT_EQ(plain(ask("hi")),
              "!504 U sent nothing for 1000 ms (chatbot_read_timeout)");
    EXPECT_GE(events_.back().call.duration_ms, 1000);

    start([](Peer& peer, auto&, int) {
        peer.send(stream_head + delta("x"));
        peer.left();
    });
    EXPECT_EQ(plain(ask("hi", true)),
              "+x !504 U sent nothing for 1000 ms (chatbot_read_timeout)");
    EXPECT_EQ(upstream_->requests(), 1);
}

TEST_F(TransfersTest, TrickleEndsAtTheDeadline)
{
    settings_.timeout_ms = 300;
    start([](Peer& peer, auto&, int) {
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
        while (!peer.left(10) && peer.send(" ")) {
        }
    });
    EXPECT_EQ(plain(ask("hi")),
              "!504 U gave no answer within 300 ms (chatbot_timeout)");
    // libcurl's clock and ours agree but for parts of a millisecond.
    EXPECT_GE(events_.back().call.duration_ms, 299);
}

TEST_F(TransfersTest, StreamIsAskedForButPiecesAreForListeners)
{
    settings_.stream = true;
    start([](Peer& peer, auto&, int) {
        peer.send(stream_head + delta("x"));
        peer.send(delta("y") + stream_end);
        peer.reset();
    });
    EXPECT_EQ(ask("hi"), "=xy");
    EXPECT_NE(upstream_->last_request().find("Accept: text/event-stream"),
              std::string::npos);
    const auto text = ask("hi", true);
    EXPECT_EQ(text[0], '+') << text;
}

TEST_F(TransfersTest, LateListenerGetsAllTextSoFar)
{
    settings_.stream = true;
    std::atomic<bool> go_on = false;
    std::atomic<int> sent = 0;
    start([&](Peer& peer, auto&, int) {
        peer.send(stream_head + delta("ab"));
        sent++;
        while (!go_on && !peer.left(5)) {
        }
        peer.send(delta("cd"));
        while (seen_ == 0 && !peer.left(5)) {
        }
        peer.send(stream_end);
        peer.reset();
    });

    const auto flight = begin("hi");
    turn_until([&] { return sent == 1; });
    turn(Clock::now() + milliseconds(20));
    EXPECT_EQ(seen_, 0);
    transfers_->listen(flight);
    EXPECT_EQ(seen_, 0) << "never from within listen()";
    go_on = true;
    const auto text = finish();
    EXPECT_TRUE(text == "+abcd =abcd" || text == "+ab +cd =abcd") << text;
}

TEST_F(TransfersTest, ListenerOfACallThatIsOver)
{
    answer(200, completion("x"));
    const auto flight = begin("hi");
    EXPECT_EQ(finish(), "=x");
    transfers_->listen(flight);
    transfers_->cancel(flight);
    turn(Clock::now());
    EXPECT_EQ(seen_, 1);
}

TEST_F(TransfersTest, CancelEndsTheCallSoonAndClosesItsConnection)
{
    std::atomic<bool> left = false;
    start([&](Peer& peer, auto&, int) {
        waiting_++;
        left = peer.left(60000);
    });
    const auto flight = begin("hi");
    turn_until([&] { return waiting_ == 1; });
    transfers_->cancel(flight);
    EXPECT_EQ(seen_, 0) << "never from within cancel()";
    const auto text = finish();
    EXPECT_EQ(text.substr(0, 4), "!499");
    turn_until([&] { return left.load(); });
    EXPECT_EQ(upstream_->requests(), 1);
}

// The attempt fails before the end of the cancelled call is told.
TEST_F(TransfersTest, ACancelledCallIsNotAskedAgain)
{
    std::atomic<bool> go = false;
    std::atomic<bool> gone = false;
    start([&](Peer& peer, auto&, int) {
        while (!go && !peer.left(1)) {
        }
        peer.reset();
        gone = true;
    });
    const auto flight = begin("hi");
    turn_until([&] { return upstream_->requests() == 1; });
    go = true;
    while (!gone) {
        std::this_thread::sleep_for(milliseconds(1));
    }
    transfers_->cancel(flight);
    EXPECT_EQ(finish().substr(0, 4), "!499");
    EXPECT_EQ(upstream_->requests(), 1);
}

TEST_F(TransfersTest, DestroyedWithCallsInFlight)
{
    start([](Peer& peer, auto&, int) { peer.left(); });
    begin("hi");
    turn_until([&] { return upstream_->requests() == 1; });
    transfers_.reset();
    EXPECT_EQ(seen_, 0);
}

}  // namespace
}  // namespace chatbot
