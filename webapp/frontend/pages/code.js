// Registration and new password: the code comes behind '#', which no server sees; it goes into its field and out of the address.
import "../parts/help.js";
const code = location.hash.slice(1);
if (code) {
  document.getElementById("code").value = decodeURIComponent(code);
  history.replaceState(null, "", location.pathname);
}
