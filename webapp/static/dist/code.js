import"./part-62TUWZRR.js";var e=location.hash.slice(1);e&&(document.getElementById("code").value=decodeURIComponent(e),history.replaceState(null,"",location.pathname));
