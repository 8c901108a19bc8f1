"""Role scripts that do no work: they open the RPC port, fork as told and stay, so that membership is tested without models."""
