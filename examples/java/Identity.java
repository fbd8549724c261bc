import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PublicKey;
import java.security.Signature;
import java.security.spec.X509EncodedKeySpec;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Scanner;

/** Verifies identity tokens of one gateway for one service, with nothing but the JDK (17). */
public final class Identity {
  /** The token is not valid. */
  public static final class Refused extends Exception {
    Refused(String why) {
      super(why);
    }
  }

  /** The gateway's keys have never been fetched. The token may be valid. */
  public static final class KeysUnavailable extends Exception {}

  private static final long LEEWAY = 30; // seconds that the clocks of the gateway and the service may differ
  private static final long MAX_LIFE = 60; // seconds
  private static final Duration REFRESH_AFTER = Duration.ofMinutes(5); // so that a withdrawn key is no longer valid
  private static final Duration MIN_INTERVAL = Duration.ofSeconds(10); // between fetches for unknown keys: anybody can send one
  private static final Duration RETRY_INTERVAL = Duration.ofSeconds(1); // between failed fetches
  /** What stands before the 32 bytes of an Ed25519 key in X.509 (RFC 8410). */
  private static final byte[] PREFIX = HexFormat.of().parseHex("302a300506032b6570032100");

  private final HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
  private final String issuer;
  private final String audience;
  private Map<String, PublicKey> keys; // null until the first fetch succeeds
  private Instant fetched = Instant.MIN;
  private Instant nextFetch = Instant.MIN;

  public Identity(String issuer, String audience) {
    this.issuer = issuer;
    this.audience = audience;
  }

  /** Returns the claims of a token; without "sub" the caller is not signed in. */
  public Map<?, ?> verify(String token) throws Refused, KeysUnavailable {
    try {
      String[] parts = token.split("\\.", -1);
      require(parts.length == 3, "malformed");
      Map<?, ?> header = object(parts[0]);
      require("EdDSA".equals(header.get("alg")), "algorithm");
      // It tells an identity token from an access token, which has another audience too.
      require("identity+jwt".equals(header.get("typ")), "type");
      for (String name : List.of("jwk", "jku", "x5u", "x5c", "crit")) require(!header.containsKey(name), name);

      Signature signature = Signature.getInstance("Ed25519");
      signature.initVerify(key(header.get("kid")));
      signature.update((parts[0] + "." + parts[1]).getBytes(StandardCharsets.US_ASCII));
      require(signature.verify(Base64.getUrlDecoder().decode(parts[2])), "signature");

      Map<?, ?> claims = object(parts[1]);
      require(issuer.equals(claims.get("iss")), "issuer");
      // With two audiences, one of them could present the token to the other.
      require(audience.equals(claims.get("aud")) || List.of(audience).equals(claims.get("aud")), "audience");
      require(claims.get("iat") instanceof Double && claims.get("exp") instanceof Double, "lifetime");
      double now = Instant.now().getEpochSecond(), iat = (Double) claims.get("iat"), exp = (Double) claims.get("exp");
      require(exp + LEEWAY > now && iat - LEEWAY <= now && exp - iat <= MAX_LIFE, "time");
      require(!claims.containsKey("nbf") || claims.get("nbf") instanceof Double && (Double) claims.get("nbf") - LEEWAY <= now, "time");
      return claims;
    } catch (GeneralSecurityException | IllegalArgumentException malformed) {
      throw new Refused(malformed.getMessage());
    }
  }

  private static void require(boolean holds, String what) throws Refused {
    if (!holds) throw new Refused(what);
  }

  private static Map<?, ?> object(String part) throws Refused {
    Object value = Json.parse(new String(Base64.getUrlDecoder().decode(part), StandardCharsets.UTF_8));
    require(value instanceof Map, "malformed");
    return (Map<?, ?>) value;
  }

  /** Fetches once for all concurrent callers. */
  private synchronized PublicKey key(Object id) throws Refused, KeysUnavailable {
    Instant now = Instant.now();
    boolean stale = keys == null || !keys.containsKey(id) || now.isAfter(fetched.plus(REFRESH_AFTER));
    if (stale && now.isAfter(nextFetch)) fetch(now);
    if (keys == null) throw new KeysUnavailable();
    PublicKey key = keys.get(id);
    require(key != null, "unknown key");
    return key;
  }

  private void fetch(Instant now) {
    nextFetch = now.plus(RETRY_INTERVAL);
    try {
      URI at = URI.create(issuer + "/.well-known/identity-jwks.json");
      HttpRequest request = HttpRequest.newBuilder(at).timeout(Duration.ofSeconds(5)).build();
      HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
      if (response.statusCode() != 200) return; // the keys that are there stay in use
      Map<String, PublicKey> found = new HashMap<>();
      for (Object item : (List<?>) ((Map<?, ?>) Json.parse(response.body())).get("keys")) {
        Map<?, ?> jwk = (Map<?, ?>) item;
        if (!"OKP".equals(jwk.get("kty")) || !"Ed25519".equals(jwk.get("crv"))) continue;
        byte[] x = Base64.getUrlDecoder().decode((String) jwk.get("x"));
        byte[] encoded = new byte[PREFIX.length + x.length];
        System.arraycopy(PREFIX, 0, encoded, 0, PREFIX.length);
        System.arraycopy(x, 0, encoded, PREFIX.length, x.length);
        found.put((String) jwk.get("kid"), KeyFactory.getInstance("Ed25519").generatePublic(new X509EncodedKeySpec(encoded)));
      }
      keys = found;
      fetched = now;
      nextFetch = now.plus(MIN_INTERVAL);
    } catch (IOException | GeneralSecurityException | RuntimeException failed) {
      return;
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  /** Reads JSON, which the JDK does not. A service uses its own library instead. */
  private static final class Json {
    private final String text;
    private int at;

    private Json(String text) {
      this.text = text;
    }

    static Object parse(String text) {
      Json json = new Json(text);
      Object value = json.value();
      if (json.peek() != 0) throw new IllegalArgumentException("malformed");
      return value;
    }

    /** Returns the next character that is no space, or 0 at the end. */
    private char peek() {
      while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) at++;
      return at < text.length() ? text.charAt(at) : 0;
    }

    private boolean take(char c) {
      if (peek() != c) return false;
      at++;
      return true;
    }

    private void expect(char c) {
      if (!take(c)) throw new IllegalArgumentException("malformed");
    }

    private Object value() {
      if (take('{')) {
        Map<String, Object> object = new HashMap<>();
        while (!take('}')) {
          if (!object.isEmpty()) expect(',');
          peek();
          String name = string();
          expect(':');
          if (object.put(name, value()) != null) throw new IllegalArgumentException("a name comes twice");
        }
        return object;
      }
      if (take('[')) {
        List<Object> list = new ArrayList<>();
        while (!take(']')) {
          if (!list.isEmpty()) expect(',');
          list.add(value());
        }
        return list;
      }
      if (peek() == '"') return string();
      int start = at;
      while (at < text.length() && ",]} \t\r\n".indexOf(text.charAt(at)) < 0) at++;
      String word = text.substring(start, at);
      if (word.equals("true") || word.equals("false")) return word.equals("true");
      return word.equals("null") ? null : (Object) Double.valueOf(word);
    }

    private String string() {
      expect('"');
      StringBuilder read = new StringBuilder();
      while (at < text.length() && text.charAt(at) != '"') {
        char c = text.charAt(at++);
        if (c == '\\') {
          c = text.charAt(at++);
          int escaped = "nrtbf".indexOf(c);
          if (c == 'u') c = (char) Integer.parseInt(text.substring(at, at += 4), 16);
          else if (escaped >= 0) c = "\n\r\t\b\f".charAt(escaped);
        }
        read.append(c);
      }
      expect('"');
      return read.toString();
    }
  }

  /** Verifies each line of the input, and prints who calls, or that the token is refused. */
  public static void main(String[] args) {
    Identity identity = new Identity(args[0], args[1]);
    Scanner lines = new Scanner(System.in);
    while (lines.hasNextLine()) {
      try {
        System.out.println(identity.verify(lines.nextLine()).get("sub"));
      } catch (Refused refused) {
        System.out.println("refused: " + refused.getMessage());
      } catch (KeysUnavailable unavailable) {
        System.out.println("unavailable");
      }
    }
  }
}
