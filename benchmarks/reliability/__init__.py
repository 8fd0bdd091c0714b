"""What kills, missing networks and other programs leave of runs, studies and exports."""
